"""A.3 fitted to best learning rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis.learning_rates import rate_curve

SIZES = 4.0 ** np.arange(8)


@given(st.floats(2, 5e3), st.floats(1e-4, 10), st.sampled_from([0.5, 0.75, 1.0]))
def test_found_again(turn: float, limit: float, power: float) -> None:
    curve = rate_curve(SIZES, limit / (1 + turn / SIZES) ** power, power)
    assert curve is not None
    assert curve.turn.value == pytest.approx(turn, rel=1e-2)
    assert curve.limit == pytest.approx(limit, rel=1e-2)
    assert curve.turn.low < turn < curve.turn.high
    np.testing.assert_allclose(curve(SIZES), limit / (1 + turn / SIZES) ** power, rtol=0.01)


def test_no_bend() -> None:
    linear = rate_curve(SIZES, 1e-3 * SIZES)
    flat = rate_curve(SIZES, np.full(8, 0.1))
    assert linear is not None
    assert flat is not None
    assert linear.turn.value == linear.turn.high == math.inf
    assert flat.turn.value == flat.turn.low == 0
    np.testing.assert_allclose(linear(SIZES), 1e-3 * SIZES, rtol=0.02)


def test_too_few_and_bad_numbers() -> None:
    assert rate_curve([8, 8, 16], [0.1, 0.2, 0.3]) is None
    with pytest.raises(ValueError, match="positive"):
        rate_curve([1, 2, 0], [0.1, 0.1, 0.1])


@pytest.mark.statistical
def test_the_interval_covers() -> None:
    """1,000 repetitions, rates rounded to a grid a factor 2 apart: 95 % nominal; 0.92 is 4 standard errors below."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        exact = 0.1 / (1 + 32 / SIZES)
        rounded = 0.1 * 2.0 ** (np.round(np.log2(exact / 0.1) + rng.uniform()) - rng.uniform(size=1))
        curve = rate_curve(SIZES, rounded)
        assert curve is not None
        covered += curve.turn.low <= 32 <= curve.turn.high
    assert covered / 1000 > 0.92
