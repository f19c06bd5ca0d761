"""Agents: networks, returns and one file per algorithm."""

if __name__ != "rl_scaling.agents":
    raise ImportError("import rl_scaling.agents: the folder agents/ is part of the package rl_scaling")

from typing import Any

from rl_scaling.agents.a2c import A2C
from rl_scaling.agents.agent import Agent
from rl_scaling.agents.networks import ActorCritic, make_network
from rl_scaling.agents.ppo import PPO
from rl_scaling.config import A2CConfig, AgentConfig, PPOConfig

__all__ = ["A2C", "PPO", "ActorCritic", "Agent", "make_agent", "make_network"]


def make_agent(config: AgentConfig, observation_shape: tuple[int, ...], num_actions: int, **options: Any) -> Agent[Any]:
    """The agent of the algorithm whose settings these are; arguments as `Agent`."""
    return _AGENTS[config.kind](config, observation_shape, num_actions, **options)


# By the kind of their config.
_AGENTS: dict[str, type[Agent[Any]]] = {A2CConfig.kind: A2C, PPOConfig.kind: PPO}
