from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from rl_scaling.statistics.block_length import (
    FEWEST_BLOCKS,
    MOST_BLOCKS,
    block_starts,
    choose_blocks,
    trend,
    without_trend,
)


@given(weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=80), blocks=st.integers(2, 30))
def test_blocks_are_few_and_never_empty(weights: list[float], blocks: int) -> None:
    starts = block_starts(np.array(weights), blocks)
    assert starts[0] == 0
    assert len(starts) <= min(blocks, len(weights))
    assert np.all(np.diff(starts) > 0)
    assert starts[-1] < len(weights)


@given(n=st.integers(1, 500), blocks=st.integers(2, 30))
def test_blocks_of_equal_weights_differ_by_one_at_most(n: int, blocks: int) -> None:
    starts = block_starts(np.ones(n), blocks)
    lengths = np.diff(np.append(starts, n))
    assert len(starts) == min(n, blocks)
    assert lengths.max() - lengths.min() <= 1


def test_blocks_of_a_moving_average_are_of_about_equal_weight() -> None:
    weights = np.exp(-np.arange(400)[::-1] / 50)
    sums = np.add.reduceat(weights, block_starts(weights, 20)) / weights.sum()
    assert len(sums) == 20
    assert sums == pytest.approx(np.full(20, 0.05), abs=0.02)


def autoregressive(n: int, coefficient: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(n + 500)
    return np.asarray(lfilter([1], [1, -coefficient], noise))[500:]


@given(n=st.integers(1, 300), most=st.integers(2, 60), coefficient=st.floats(-0.9, 0.99), window=st.floats(1, 1e4))
def test_blocks_keep_to_their_limits(n: int, most: int, coefficient: float, window: float) -> None:
    weights = np.exp(-np.arange(n)[::-1] / window)
    blocks = choose_blocks(weights * autoregressive(n, coefficient), weights, most)
    assert 1 <= len(blocks.starts) <= min(n, most)
    assert 0 <= blocks.missed <= 0.6


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.8, 0.95])
def test_blocks_are_long_against_the_dependence(coefficient: float) -> None:
    """AR(1): (G / g0) = 2 phi / (1 - phi^2); the estimate scatters, so its median over 40 series."""
    n = 4_000
    found = [choose_blocks(autoregressive(n, coefficient, seed), np.ones(n)) for seed in range(40)]
    delay = 2 * coefficient / (1 - coefficient**2)
    expected = np.clip(n / max(1.5 * (n * delay**2) ** (1 / 3), 1), FEWEST_BLOCKS, MOST_BLOCKS)
    assert np.median([len(blocks.starts) for blocks in found]) == pytest.approx(expected, rel=0.2)
    missed = delay * expected / n
    assert np.median([blocks.missed for blocks in found]) == pytest.approx(missed, rel=0.25)


def test_short_series_have_a_block_for_each_measurement() -> None:
    assert choose_blocks(np.arange(12.0), np.ones(12)).starts.tolist() == list(range(12))


def test_series_without_scatter_count_as_independent() -> None:
    blocks = choose_blocks(np.zeros(100), np.ones(100))
    assert (len(blocks.starts), blocks.missed) == (MOST_BLOCKS, 0)


@given(n=st.integers(2, 50), slope=st.floats(-100, 100), window=st.floats(1, 100))
def test_a_straight_line_is_taken_out_whole(n: int, slope: float, window: float) -> None:
    weights = np.exp(-np.arange(n)[::-1] / window)
    values = slope * np.arange(n)
    deviations = weights * (values - weights @ values / weights.sum())
    left = without_trend(deviations, trend(weights, np.arange(n)))
    assert np.abs(left).max() <= 1e-9 * max(1.0, abs(slope)) * n
