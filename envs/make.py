"""From a config to environments that run, on the CPUs that this process may really use.

In a container those are fewer than the machine has. Emulators are loaded when environments are made.
"""

from __future__ import annotations

import dataclasses
import math
import os
from contextlib import closing
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rl_scaling.config import require
from rl_scaling.envs.config import (
    MINATAR_CHANNELS,
    AtariConfig,
    EnvironmentConfig,
    GymnasiumConfig,
    MinAtarConfig,
)
from rl_scaling.envs.vector import Progress, VectorSource

ATARI_OBSERVATION = (4, 84, 84)
_CGROUPS = Path("/sys/fs/cgroup")


def make_vector(
    config: EnvironmentConfig,
    *,
    num_threads: int | None = None,
    progress: Progress | None = None,
    group_envs: int | None = None,
    alternate: bool = False,
) -> VectorSource:
    """The environments a config describes.

    Args:
        config: the task and the number of copies.
        num_threads: emulator threads; by default one per CPU that this process may use. Atari only.
        progress: called with (done, total) while Atari environments start.
        group_envs: make a `GroupedVector` whose number of environments changes in groups of this size.
        alternate: make an `AlternatingVector`, whose halves are acted on in turns.

    Raises:
        ConfigError: an environment that does not exist, is not installed or cannot be learned from, or a number of
            them that cannot be grouped so.
    """
    require_installed(config)
    from rl_scaling.envs.atari import AtariVector
    from rl_scaling.envs.grouped import AlternatingVector, GroupedVector
    from rl_scaling.envs.gymnasium_vector import GymnasiumVector

    make = partial(make_vector, num_threads=num_threads)
    if group_envs is not None:
        return GroupedVector(config, group_envs, make, progress=progress)
    if alternate:
        return AlternatingVector(config, make, progress=progress)
    if isinstance(config, AtariConfig):
        return AtariVector(config, num_threads=num_threads, progress=progress)
    if isinstance(config, MinAtarConfig):
        from rl_scaling.envs.minatar import MinAtarVector

        return MinAtarVector(config)
    assert isinstance(config, GymnasiumConfig)
    return GymnasiumVector(config)


def example_observation(config: EnvironmentConfig) -> np.ndarray:
    """One observation of the environment, for its shape, type and size; zeros where they are known.

    Raises:
        ConfigError: an environment that does not exist or cannot be learned from.
    """
    if isinstance(config, AtariConfig):
        return np.zeros(ATARI_OBSERVATION, np.uint8)
    if isinstance(config, MinAtarConfig):
        return np.zeros((MINATAR_CHANNELS[config.game], 10, 10), np.float32)
    return _first_observation(dataclasses.replace(config, num_envs=1))


@lru_cache
def _first_observation(config: EnvironmentConfig) -> np.ndarray:
    with closing(make_vector(config)) as source:
        return source.reset(0)[0]


def require_installed(config: EnvironmentConfig) -> None:
    """Refuse an environment whose package is not there.

    Raises:
        ConfigError: how to get it.
    """
    if isinstance(config, MinAtarConfig):
        require(find_spec("minatar") is not None, f"{config.name} needs MinAtar: pip install 'rl-scaling[minatar]'")


def available_cpus(cgroups: Path = _CGROUPS) -> int:
    """CPUs this process may use: the least of the machine's, its affinity mask and its control group's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(cpus, math.ceil(_quota(cgroups))))


def _quota(cgroups: Path) -> float:
    """CPUs' worth of time the control group grants, a large number where nothing is said."""
    for read in (_quota_v2, _quota_v1):
        try:
            return read(cgroups)
        except (OSError, ValueError):
            continue
    return 1e6


def _quota_v2(cgroups: Path) -> float:
    granted, period = (cgroups / "cpu.max").read_text().split()
    return float(granted) / float(period)  # "max" is no number: nothing is said


def _quota_v1(cgroups: Path) -> float:
    granted = float((cgroups / "cpu" / "cpu.cfs_quota_us").read_text())
    if granted <= 0:
        raise ValueError("no quota")
    return granted / float((cgroups / "cpu" / "cpu.cfs_period_us").read_text())
