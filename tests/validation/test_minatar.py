"""Speeds of small runs, alone and side by side, beside Stable-Baselines3's."""

from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.agents.config import A2CConfig, AlgorithmConfig, PPOConfig
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs.config import GymnasiumConfig, MinAtarConfig
from rl_scaling.validation.minatar import Ratio, measure

AGENTS = [A2CConfig(network="mlp"), PPOConfig(network="mlp", rollout_steps=8, minibatches=4, epochs=4)]


def test_ratios_are_formed_within_a_round() -> None:
    """The machine is twice as fast in the second round."""
    found = Ratio.of(np.array([2.0, 8.0, 6.0]), np.array([1.0, 2.0, 2.0]))
    assert found == Ratio(3.0, 2.5, 3.5)


@pytest.mark.parametrize("agent", AGENTS, ids=["A2C", "PPO"])
def test_side_by_side_pays_where_an_update_is_all_overhead(agent: AlgorithmConfig) -> None:
    config = RunConfig(environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=4), agent=agent, frames=1_000)
    found = measure(config, 8, sb3=False, seconds=0.1, rounds=3)
    assert (found.num_envs, found.runs, found.sb3, found.to_sb3) == (4, 8, None, None)
    assert min(found.alone, found.together) > 0
    assert found.gain.low <= found.gain.median <= found.gain.high
    assert found.gain.median > 1


@pytest.mark.parametrize("agent", [A2CConfig(network="minatar"), PPOConfig(network="minatar", rollout_steps=16)])
def test_stable_baselines_trains_the_same_game(agent: AlgorithmConfig) -> None:
    pytest.importorskip("minatar")
    pytest.importorskip("stable_baselines3")
    config = RunConfig(environment=MinAtarConfig(game="breakout", num_envs=4), agent=agent, frames=1_000)
    found = measure(config, 2, sb3=True, seconds=0.05, rounds=1)
    assert found.sb3 is not None
    assert found.to_sb3 is not None
    assert found.to_sb3.median == pytest.approx(found.alone / found.sb3)
