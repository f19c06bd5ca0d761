"""Environments: many copies of one task, stepped together, giving the learner exactly what it may use."""

if __name__ != "rl_scaling.envs":
    raise ImportError(f"import rl_scaling.envs, not {__name__}: the bare name belongs to other packages")

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl_scaling.envs.atari import AtariVector
    from rl_scaling.envs.games import GAMES, Game, find_game
    from rl_scaling.envs.grouped import AlternatingVector, GroupedVector, join_transitions
    from rl_scaling.envs.gymnasium_vector import GymnasiumVector
    from rl_scaling.envs.make import available_cpus, example_observation, make_vector
    from rl_scaling.envs.vector import EpisodeTally, Transition, VectorSource, check_actions

__all__ = [
    "GAMES",
    "AlternatingVector",
    "AtariVector",
    "EpisodeTally",
    "Game",
    "GroupedVector",
    "GymnasiumVector",
    "Transition",
    "VectorSource",
    "available_cpus",
    "check_actions",
    "example_observation",
    "find_game",
    "join_transitions",
    "make_vector",
]

# Loaded when they are asked for: a config of an environment needs no emulator.
_HOMES = {
    "AtariVector": "atari",
    "GymnasiumVector": "gymnasium_vector",
    **dict.fromkeys(("GAMES", "Game", "find_game"), "games"),
    **dict.fromkeys(("AlternatingVector", "GroupedVector", "join_transitions"), "grouped"),
    **dict.fromkeys(("available_cpus", "example_observation", "make_vector"), "make"),
    **dict.fromkeys(("EpisodeTally", "Transition", "VectorSource", "check_actions"), "vector"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rl_scaling.envs.{_HOMES[name]}"), name)
