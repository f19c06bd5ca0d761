"""A batch of frames that follows the noise scale: the changes that the rule makes to a run that goes on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rl_scaling.agents.config import A2CConfig
from rl_scaling.domains.rl.adaptive import AdaptiveBatch
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.envs import VectorSource, make_vector
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.noise import NoiseScaleMeter

RULE = AdaptiveBatchConfig(exchange_rate=200, min_envs=8, max_envs=128, group_envs=8)


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
