"""What an update takes, with and without its share of measuring the noise scale."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.domains.rl import timing
from rl_scaling.domains.rl.config import NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.training import what_to_measure
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig, MinAtarConfig

A2C = RunConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=4),
    agent=A2CConfig(network="mlp"),
    noise_scale=NoiseScaleConfig(every_updates=4),
    frames=1_000,
)
PPO = dataclasses.replace(A2C, agent=PPOConfig(network="mlp", rollout_steps=8, minibatches=4, epochs=4))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 1 s, a measured one 5 s."""
    monkeypatch.setattr(timing, "_timed", lambda *_, **measure: 5.0 if measure else 1.0)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("config", [A2C, PPO])
@pytest.mark.parametrize("every", [0, 1, 4, 20])
def test_the_noise_scale_costs_its_share(config: RunConfig, every: int) -> None:
    config = dataclasses.replace(config, noise_scale=NoiseScaleConfig(every_updates=every))
    each = config.agent.updates_per_rollout
    rollouts = [bool(every and what_to_measure(config, each * i)) for i in range(40 * max(1, every))]
    (with_noise,) = timing.time_updates(
        config, [4], seconds=0.1, device=torch.device("cpu"), threads=1, with_noise_scale=True
    )["seconds"]
    assert with_noise == pytest.approx(1 + 4 * sum(rollouts) / len(rollouts))
    (without,) = timing.time_updates(config, [4], seconds=0.1, device=torch.device("cpu"), threads=1)["seconds"]
    assert without == 1


def test_runs_that_train_side_by_side_have_a_share_of_the_time_each(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(timing, "_timed", lambda step, *_, **measure: seen.append(len(step(**measure))) or 6.0)
    (each,) = timing.time_updates(A2C, [4], seconds=0.1, device=torch.device("cpu"), threads=1, way=timing.Way(3))[
        "seconds"
    ]
    assert each == 2
    assert set(seen) == {3}


def test_what_is_measured_is_what_would_be_run() -> None:
    runs = [
        dataclasses.replace(A2C, seed=seed, agent=dataclasses.replace(A2C.agent, learning_rate=rate))
        for seed in (0, 1)
        for rate in (1e-3, 2e-3, 4e-3)
    ]
    speed = timing.measure_speed(runs, side_by_side=1, device="cpu", seconds=0.3)
    assert speed.runs == 6
    assert "6 runs in each" in speed.note
    assert timing.cost_of(A2C, speed).seconds > 0


def test_random_starts_are_left_out_of_the_measurement() -> None:
    for environment in (AtariConfig(game="Pong"), MinAtarConfig(game="freeway", max_start_steps=700)):
        config = dataclasses.replace(A2C, environment=environment)
        expected = dataclasses.replace(environment, num_envs=3, max_start_steps=0)
        assert timing.without_random_start(config, 3) == expected
