"""From an estimate of the noise scale to a batch size: the rule of every adaptive batch."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.config import AdaptiveConfig
from rl_scaling.noise import NoiseScaleEstimate, next_size

STEPS = 5
RULE = AdaptiveConfig(exchange_rate=200)


def next_num_envs(rule: AdaptiveConfig, now: int, estimate: NoiseScaleEstimate) -> int:
    """Environments in groups of 8, five frames of each."""
    return next_size(rule, now, estimate, fewest=8, most=128, step=8, each=STEPS)


def estimate(noise_scale: float, low: float | None = None) -> NoiseScaleEstimate:
    resolved = low is None
    return NoiseScaleEstimate(
        b_simple=noise_scale if resolved else math.nan,
        low=noise_scale / 2 if low is None else low,
        high=2 * noise_scale if resolved else math.inf,
        grad_sq_norm=1.0,
        trace_cov=noise_scale,
        steps=50,
        resolved=resolved,
        design_effect=math.nan,
        skipped=0,
        confidence=0.95,
    )


def settle(rule: AdaptiveConfig, num_envs: int, noise_scale: float) -> list[int]:
    """The numbers of environments while the noise scale stays what it is."""
    seen = [num_envs]
    for _ in range(20):
        seen.append(next_num_envs(rule, seen[-1], estimate(noise_scale)))
    return seen


@given(start=st.integers(1, 16), noise_scale=st.floats(0, 1e7), rate=st.floats(0.1, 1e6))
def test_the_rule_settles_near_the_square_root_within_its_bounds(start: int, noise_scale: float, rate: float) -> None:
    rule = dataclasses.replace(RULE, exchange_rate=rate)
    seen = settle(rule, 8 * start, noise_scale)
    assert seen[-1] == seen[-2]
    assert all(n % 8 == 0 and 8 <= n <= 128 for n in seen)
    assert all(0.5 <= after / before <= 2 for before, after in itertools.pairwise(seen))
    wanted = min(max(math.sqrt(rate * noise_scale) / STEPS, 8), 128)
    assert wanted / rule.tolerance - 8 <= seen[-1] <= wanted * rule.tolerance + 8


@given(level=st.floats(1, 1e4), around=st.lists(st.floats(-0.1, 0.1), min_size=30, max_size=30))
def test_an_estimate_that_wavers_does_not_make_the_batch_flap(level: float, around: list[float]) -> None:
    """B_simple that wavers by a tenth: after settling, no number of environments is left and come back to."""
    numbers = [settle(RULE, 64, level)[-1]]
    for relative in around:
        numbers.append(next_num_envs(RULE, numbers[-1], estimate(level * (1 + relative))))
    changes = [n for n, before in zip(numbers[1:], numbers[:-1], strict=True) if n != before]
    assert len(changes) == len(set(changes))


def test_while_unresolved_the_bound_may_ask_for_more_but_never_for_fewer() -> None:
    assert next_num_envs(RULE, 64, estimate(math.nan, low=0.0)) == 64
    assert next_num_envs(RULE, 64, estimate(math.nan, low=10.0)) == 64
    assert next_num_envs(RULE, 16, estimate(math.nan, low=200.0)) == 32  # sqrt(200 * 200) / 5 = 40, twice 16
    assert next_num_envs(RULE, 32, estimate(math.nan, low=200.0)) == 40


@pytest.mark.parametrize(
    ("now", "noise_scale", "expected"),
    [(16, 200, 32), (180, 200, 180), (161, 200, 161), (500, 200, 250), (300, 200, 200), (8, 0.0, 8), (600, 1e6, 1000)],
    ids=["twice at most", "within tolerance", "just within", "half at least", "at once", "fewest", "most"],
)
def test_examples_come_one_by_one(now: int, noise_scale: float, expected: int) -> None:
    """B = sqrt(200 B_simple)."""
    assert next_size(RULE, now, estimate(noise_scale), fewest=8, most=1000) == expected
