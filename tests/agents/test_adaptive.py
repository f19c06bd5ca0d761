"""A batch that follows the noise scale: the rule, and the changes it makes to a run that goes on."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.agents.adaptive import AdaptiveBatch, next_num_envs
from rl_scaling.config import A2CConfig, AdaptiveBatchConfig, GymnasiumConfig, NoiseScaleConfig, RunConfig
from rl_scaling.envs import VectorSource, make_vector
from rl_scaling.noise import NoiseScaleEstimate, NoiseScaleMeter

STEPS = 5
RULE = AdaptiveBatchConfig(exchange_rate=200, min_envs=8, max_envs=128, group_envs=8)


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


def settle(rule: AdaptiveBatchConfig, num_envs: int, noise_scale: float) -> list[int]:
    """The numbers of environments while the noise scale stays what it is."""
    seen = [num_envs]
    for _ in range(20):
        seen.append(next_num_envs(rule, STEPS, seen[-1], estimate(noise_scale)))
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
        numbers.append(next_num_envs(RULE, STEPS, numbers[-1], estimate(level * (1 + relative))))
    changes = [n for n, before in zip(numbers[1:], numbers[:-1], strict=True) if n != before]
    assert len(changes) == len(set(changes))


def test_while_unresolved_the_bound_may_ask_for_more_but_never_for_fewer() -> None:
    assert next_num_envs(RULE, STEPS, 64, estimate(math.nan, low=0.0)) == 64
    assert next_num_envs(RULE, STEPS, 64, estimate(math.nan, low=10.0)) == 64
    assert next_num_envs(RULE, STEPS, 16, estimate(math.nan, low=200.0)) == 32  # sqrt(200 * 200) / 5 = 40, twice 16
    assert next_num_envs(RULE, STEPS, 32, estimate(math.nan, low=200.0)) == 40


RUN = RunConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=8),
    agent=A2CConfig(network="mlp", learning_rate=1e-3),
    noise_scale=NoiseScaleConfig(every_updates=1),
    adaptive=dataclasses.replace(RULE, change_every_updates=10, rate_power=1.0, rate_turn=400),
)


class Listener:
    """Stands in for an agent."""

    def __init__(self) -> None:
        self.learning_rate_factor = 1.0
        self.begun: list[tuple[int, ...]] = []

    def begin(self, source: VectorSource, observations: np.ndarray) -> None:
        self.begun.append(observations.shape)


def meter_of(noise_scale: float) -> NoiseScaleMeter:
    """Eight groups of five frames each, again and again with the same moments: tr(Sigma) = noise_scale, |G|^2 = 1."""
    meter = NoiseScaleMeter(group_size=5)
    for _ in range(20):
        meter.update([1 + noise_scale / 5] * 8, 1 + noise_scale / 40)
    return meter


def test_environments_and_learning_rate_follow_when_it_is_time() -> None:
    source, learner = make_vector(RUN.environment, group_envs=8), Listener()
    source.reset(0)
    adaptive = AdaptiveBatch(RUN, learner, source)
    meter = meter_of(800.0)  # B = sqrt(200 * 800) = 400 frames: 80 environments
    assert adaptive.after_update(9, meter) == 8
    assert adaptive.after_update(10, None) == 8
    assert [adaptive.after_update(n, meter) for n in (20, 30, 40, 50, 60)] == [16, 32, 64, 80, 80]
    assert learner.begun == [(n, 4) for n in (16, 32, 64, 80)]
    assert source.num_envs == 80
    # A.3 with alpha = 1: eps(400) / eps(40) = (1 + 400 / 40) / (1 + 400 / 400)
    assert learner.learning_rate_factor == pytest.approx(5.5)
    source.close()


def test_a_source_that_cannot_change_is_refused() -> None:
    with pytest.raises(TypeError, match="group_envs"):
        AdaptiveBatch(RUN, Listener(), make_vector(RUN.environment))
