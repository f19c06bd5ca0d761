"""Agents: networks, returns and one file per algorithm."""

if __name__ != "rl_scaling.agents":
    raise ImportError("import rl_scaling.agents: the folder agents/ is part of the package rl_scaling")

from rl_scaling.agents.a2c import A2C
from rl_scaling.agents.networks import ActorCritic, make_network

__all__ = ["A2C", "ActorCritic", "make_network"]
