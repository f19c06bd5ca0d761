"""Environments: many copies of one task, stepped together, giving the learner exactly what it may use."""

if __name__ != "rl_scaling.envs":
    raise ImportError(f"import rl_scaling.envs, not {__name__}: the bare name belongs to other packages")

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl_scaling.envs.atari import AtariVector
    from rl_scaling.envs.games import GAMES, MINATAR_GAMES, Game, find_game, find_games
    from rl_scaling.envs.grouped import AlternatingVector, GroupedVector, join_transitions
    from rl_scaling.envs.gymnasium_vector import GymnasiumVector
    from rl_scaling.envs.make import available_cpus, example_observation, make_vector, require_installed
    from rl_scaling.envs.minatar import MinAtarVector
    from rl_scaling.envs.vector import EpisodeTally, Transition, VectorSource, check_actions

__all__ = [
    "GAMES",
    "MINATAR_GAMES",
    "AlternatingVector",
    "AtariVector",
    "EpisodeTally",
    "Game",
    "GroupedVector",
    "GymnasiumVector",
    "MinAtarVector",
    "Transition",
    "VectorSource",
    "available_cpus",
    "check_actions",
    "example_observation",
    "find_game",
    "find_games",
    "join_transitions",
    "make_vector",
    "require_installed",
]

# Loaded when they are asked for: a config of an environment needs no emulator.
_HOMES = {
    "AtariVector": "atari",
    "GymnasiumVector": "gymnasium_vector",
    "MinAtarVector": "minatar",
    **dict.fromkeys(("GAMES", "MINATAR_GAMES", "Game", "find_game", "find_games"), "games"),
    **dict.fromkeys(("AlternatingVector", "GroupedVector", "join_transitions"), "grouped"),
    **dict.fromkeys(("available_cpus", "example_observation", "make_vector", "require_installed"), "make"),
    **dict.fromkeys(("EpisodeTally", "Transition", "VectorSource", "check_actions"), "vector"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rl_scaling.envs.{_HOMES[name]}"), name)
