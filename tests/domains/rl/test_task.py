"""A task of a sweep makes the runs that are stored under results/."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from rl_scaling.agents.config import A2CConfig, AlgorithmConfig, PPOConfig
from rl_scaling.config import ConfigError, parse, to_dict
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, RunConfig, run_config_from_dict
from rl_scaling.domains.rl.registry import ALGORITHMS, find_algorithm
from rl_scaling.domains.rl.task import SCALES, RLTask, ScaleName, learning_rates_of, scale_of
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig, MinAtarConfig

RESULTS = Path(__file__).parents[3] / "results"
BASE = RunConfig(environment=GymnasiumConfig(env_id="CartPole-v1"), agent=A2CConfig(network="mlp"), frames=1_000)


def task_of(base: RunConfig, **options: object) -> RLTask:
    return RLTask(**{"base": base, "batch_sizes": (20, 40), "learning_rates": learning_rates_of(base.agent)} | options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("store", ["breakout-a2c", "breakout-ppo", "pong-a2c"])
def test_stored_runs_are_those_of_a_task(store: str) -> None:
    """A task made of what a sweep leaves alone gives each run its id from its batch size, rate and seed."""
    stored = {
        path.parent.name: run_config_from_dict(json.loads(path.read_text())["config"])
        for path in (RESULTS / store).glob("*/config.json")
    }
    fixed = {run_id: run for run_id, run in stored.items() if run.adaptive is None}
    assert len(fixed) >= 8
    for run_id, run in fixed.items():
        base = dataclasses.replace(
            run,
            environment=dataclasses.replace(run.environment, num_envs=16),
            agent=dataclasses.replace(run.agent, learning_rate=1.0),
            seed=99,
        )
        task = task_of(base, batch_sizes=(run.batch_size,))
        assert task.config(run.batch_size, run.learning_rate, run.seed).run_id == run_id


def test_adaptive_runs_begin_with_the_rates_of_their_smallest_batch() -> None:
    adaptive = AdaptiveBatchConfig(exchange_rate=300, min_envs=8, max_envs=16)
    task = task_of(BASE, adaptive=(adaptive,))
    configs = task.adaptive_configs(seed=3)
    assert [config.learning_rate for config in configs] == task.learning_rates.grid(40)
    assert {(c.environment.num_envs, c.seed, c.adaptive) for c in configs} == {(8, 3, adaptive)}
    assert not task_of(BASE).adaptive_configs(0)


def test_a_task_can_be_kept_as_json() -> None:
    task = task_of(BASE, goals=(100.0,), adaptive=(AdaptiveBatchConfig(exchange_rate=300),))
    plain = json.loads(json.dumps(to_dict(task)))
    assert plain.pop("kind") == "rl"
    assert parse(RLTask, plain, "plan") == task


def test_the_label_is_that_of_the_runs() -> None:
    assert task_of(BASE).task == BASE.task == "CartPole-v1 a2c network=mlp"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": (42,)}, "no number of environments has batches of 42 frames"),
        ({"batch_sizes": ()}, "no batch sizes"),
        ({"goals": (float("nan"),)}, "not a score"),
    ],
)
def test_what_makes_no_task_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_of(BASE, **options)


def test_nothing_but_the_rate_is_tuned() -> None:
    with pytest.raises(ConfigError, match="momentum cannot be tuned"):
        task_of(BASE).config(20, 1e-3, 0, momentum=0.9)


@pytest.mark.parametrize(
    ("agent", "rate", "batch"),
    [(A2CConfig(), 7e-4, 80), (A2CConfig(rollout_steps=20), 7e-4, 80), (PPOConfig(minibatches=3), 2.5e-4, 256)],
)
def test_reference_rates_are_those_of_the_zoo(agent: AlgorithmConfig, rate: float, batch: int) -> None:
    """Stable-Baselines3's zoo for Atari; the algorithm's other settings do not move them."""
    rates = learning_rates_of(agent)
    assert (rates.reference_rate, rates.reference_batch, rates.turn, rates.power) == (rate, batch, 1000.0, 0.5)
    assert rates.centre(batch) == pytest.approx(rate)
    assert learning_rates_of(agent, reference_rate=1e-3).centre(batch) == pytest.approx(1e-3)


def test_rates_of_the_families_follow_the_rules_of_each() -> None:
    """Four times the environments: A.3 with alpha 0.5, the same rate, and twice the rate."""
    ratios = []
    for scaling in ("count", "minibatch", "ewma"):
        agent = PPOConfig(scaling=scaling).as_algorithm
        rates = learning_rates_of(agent)
        assert rates.centre(agent.batch_size(8)) == pytest.approx(2.5e-4)
        ratios.append(rates.centre(agent.batch_size(32)) / rates.centre(agent.batch_size(8)))
    assert ratios == pytest.approx([((1 + 1000 / 256) / (1 + 1000 / 1024)) ** 0.5, 1, 2])


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("scale", list(SCALES))
def test_every_algorithm_has_batches_of_every_scale(algorithm: str, scale: str) -> None:
    agent = find_algorithm(algorithm)()  # pyright: ignore[reportCallIssue]
    sizes = tuple(agent.batch_size(n) for n in agent.num_envs_of_scale[scale])
    task = task_of(dataclasses.replace(BASE, agent=agent), batch_sizes=sizes)
    assert [task.config(size, 1e-3, 0).batch_size for size in sizes] == list(sizes)


@pytest.mark.parametrize(
    ("name", "frames"), [(None, 1_000_000), ("smoke", 50_000), ("overnight", 2_000_000), ("paper", 5_000_000)]
)
def test_minatar_takes_other_frames_and_its_own_network(name: ScaleName | None, frames: int) -> None:
    atari, grid = scale_of(name, AtariConfig(game="Pong")), scale_of(name, MinAtarConfig(game="breakout"))
    assert atari == SCALES[name or "plain"]
    assert (grid.network, grid.frames) == ("minatar", frames)
    assert dataclasses.replace(grid, network=atari.network, frames=atari.frames) == atari
