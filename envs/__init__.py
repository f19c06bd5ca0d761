"""Environments: many copies of one task, stepped together, giving the learner exactly what it may use."""

if __name__ != "rl_scaling.envs":
    raise ImportError(f"import rl_scaling.envs, not {__name__}: the bare name belongs to other packages")

from collections.abc import Callable
from functools import partial

from rl_scaling.config import AtariConfig, EnvironmentConfig
from rl_scaling.envs.alternating import AlternatingVector
from rl_scaling.envs.atari import AtariVector
from rl_scaling.envs.games import GAMES, Game, find_game
from rl_scaling.envs.grouped import GroupedVector, join_transitions
from rl_scaling.envs.gymnasium_vector import GymnasiumVector
from rl_scaling.envs.processors import available_cpus
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
    "find_game",
    "join_transitions",
    "make_vector",
]


def make_vector(
    config: EnvironmentConfig,
    *,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    group_envs: int | None = None,
    alternate: bool = False,
) -> VectorSource:
    """The environments a config describes.

    Args:
        config: the task and the number of copies.
        num_threads: emulator threads; by default one per CPU that this process may use. Atari only.
        progress: called with (done, total) while Atari environments start.
        group_envs: make a `GroupedVector` whose number of environments can change by groups of so many.
        alternate: make an `AlternatingVector`, whose halves are acted on in turns.

    Raises:
        ConfigError: an environment that does not exist or cannot be learned from, or a number of
            them that cannot be grouped so.
    """
    make = partial(make_vector, num_threads=num_threads)
    if group_envs is not None:
        return GroupedVector(config, group_envs, make, progress=progress)
    if alternate:
        return AlternatingVector(config, make, progress=progress)
    if isinstance(config, AtariConfig):
        return AtariVector(config, num_threads=num_threads, progress=progress)
    return GymnasiumVector(config)
