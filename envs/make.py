"""From a config to environments that run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rl_scaling.envs.alternating import AlternatingVector
from rl_scaling.envs.atari import AtariVector
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, GymnasiumConfig
from rl_scaling.envs.grouped import GroupedVector
from rl_scaling.envs.gymnasium_vector import GymnasiumVector
from rl_scaling.envs.vector import VectorSource


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
    assert isinstance(config, GymnasiumConfig)
    return GymnasiumVector(config)
