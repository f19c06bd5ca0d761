"""Your own algorithm is a line in the registry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from rl_scaling.agents import A2C, PPO
from rl_scaling.agents.config import A2CConfig, AlgorithmConfig
from rl_scaling.config import ConfigError, to_dict
from rl_scaling.domains.rl.config import RunConfig, run_config_from_dict
from rl_scaling.domains.rl.registry import ALGORITHMS, find_algorithm, make_agent
from rl_scaling.domains.rl.task import learning_rates_of
from rl_scaling.envs.config import GymnasiumConfig


@dataclass(frozen=True, kw_only=True)
class OwnConfig(A2CConfig):
    kind: ClassVar[str] = "own"
    rate_power: ClassVar[float] = 1.0
    boldness: float = 0.5


class Own(A2C): ...


@pytest.mark.parametrize(("kind", "agent"), [("a2c", A2C), ("ppo", PPO)])
def test_algorithms_are_found_by_name(kind: str, agent: type) -> None:
    config = find_algorithm(kind)(network="mlp")  # pyright: ignore[reportCallIssue]
    assert config.kind == kind
    assert type(make_agent(config, (4,), 2, total_updates=1)) is agent


def test_a_line_makes_an_algorithm_a_part_of_runs_and_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, "own", (f"{__name__}:OwnConfig", f"{__name__}:Own"))
    agent = OwnConfig(network="mlp", boldness=0.75)
    run = RunConfig(environment=GymnasiumConfig(env_id="CartPole-v1"), agent=agent)
    assert run_config_from_dict(json.loads(json.dumps(to_dict(run)))) == run
    assert run.task == "CartPole-v1 own boldness=0.75 network=mlp"
    assert type(make_agent(agent, (4,), 2, total_updates=1)) is Own
    assert learning_rates_of(agent).power == 1.0


def test_an_unknown_one_is_refused() -> None:
    message = "no algorithm 'dreamer': give a2c, ppo or ppo-ewma, or it needs a newer rl-scaling"
    with pytest.raises(ConfigError, match=message):
        find_algorithm("dreamer")
    assert not hasattr(AlgorithmConfig, "kind")
