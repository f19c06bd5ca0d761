"""Agents: networks, returns and one file per algorithm; imported when they are asked for."""

if __name__ != "rl_scaling.agents":
    raise ImportError("import rl_scaling.agents: the folder agents/ is part of the package rl_scaling")

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl_scaling.agents.a2c import A2C
    from rl_scaling.agents.agent import Agent
    from rl_scaling.agents.networks import ActorCritic, make_network
    from rl_scaling.agents.ppo import PPO

__all__ = ["A2C", "PPO", "ActorCritic", "Agent", "make_network"]

_HOMES = {"A2C": "a2c", "PPO": "ppo", "Agent": "agent", "ActorCritic": "networks", "make_network": "networks"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rl_scaling.agents.{_HOMES[name]}"), name)
