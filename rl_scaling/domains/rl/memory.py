"""How much memory a run takes, estimated before it starts, and the refusal of runs that there is no room for.

What was measured (peak resident memory of A2C and PPO with 8 to 32 environments on a CPU) is within a tenth of the
estimate; `tests/domains/rl/test_memory.py` measures again. On a GPU nothing was measured.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from rl_scaling.agents.networks import layer_units
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import FrozenConfig, RunConfig
from rl_scaling.envs import example_observation
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, MinAtarConfig

# Python with torch, its libraries' own buffers included.
PROCESS_BYTES = 360e6
ENVIRONMENT_BYTES = 1.8e6
# The package loads what it could draw with.
MINATAR_BYTES, MINATAR_ENVIRONMENT_BYTES = 150e6, 8e3
# Weights of a network.
PARAMETERS = {"nature": 1_700_000, "small": 680_000, "minatar": 135_000, "mlp": 10_000}
# What layers give is kept as such and after the ReLUs, and again as a gradient.
_COPIES_OF_LAYERS = 3.5
# Of the groups' gradients where weights are kept: of three terms of the loss those of a rollout, their sums and what is
# computed on the way. 64 environments of Pong and Breakout, small network, 16 groups, took 1.2 GB at their peak.
_COPIES_OF_GRADIENTS = 15


@dataclass(frozen=True)
class Memory:
    """Bytes that a run takes at most.

    Attributes:
        process: the program itself.
        environments: the emulators.
        rollout: observations of all frames of a rollout: where they are made and where they are learned from.
        learning: the network's inputs and layers for the frames of one update, and their gradients.
    """

    process: float
    environments: float
    rollout: float
    learning: float

    @property
    def total(self) -> float:
        return self.process + self.environments + self.rollout + self.learning

    def on(self, device: torch.device) -> tuple[float, float]:
        """(host, GPU) bytes: with a GPU what is learned from is there, with half of the two copies of the rollout."""
        if device.type != "cuda":
            return self.total, 0.0
        moved = self.rollout / 2 + self.learning
        return self.total - moved, moved


def memory_of(config: RunConfig | FrozenConfig) -> Memory:
    """The estimate for one run; an adaptive batch counts with the most environments it may have.

    Raises:
        ConfigError: an environment that does not exist or cannot be learned from.
    """
    agent = config.agent
    num_envs = _most_envs(config)
    at_once, frames = agent.frames_at_once(num_envs), num_envs * agent.rollout_steps
    observation = example_observation(config.environment)
    in_parts = agent.updates_per_rollout > 1 or at_once < frames  # else the rollout itself is learned from
    minibatch = observation.nbytes if in_parts else 0
    inputs = 4 * observation.size if observation.dtype == np.uint8 else 0  # others are learned from as they are
    layers = 4 * layer_units(agent.network, observation.shape) * _COPIES_OF_LAYERS
    return Memory(
        process=PROCESS_BYTES,
        environments=_environment_bytes(config.environment, num_envs),
        rollout=2 * frames * observation.nbytes,
        learning=at_once * (minibatch + inputs + layers) + _group_gradients(config),
    )


def _environment_bytes(environment: EnvironmentConfig, num_envs: int) -> float:
    if isinstance(environment, MinAtarConfig):
        return MINATAR_BYTES + num_envs * MINATAR_ENVIRONMENT_BYTES
    return num_envs * ENVIRONMENT_BYTES if isinstance(environment, AtariConfig) else 0


def _most_envs(config: RunConfig | FrozenConfig) -> int:
    adaptive = None if isinstance(config, FrozenConfig) else config.adaptive
    return adaptive.max_envs if adaptive else config.environment.num_envs


def _group_gradients(config: RunConfig | FrozenConfig) -> float:
    """Where weights are kept, the gradients of each group."""
    if not isinstance(config, FrozenConfig):
        return 0.0
    groups = min(config.groups, config.environment.num_envs)
    return 4 * _COPIES_OF_GRADIENTS * groups * PARAMETERS[config.agent.network]


def require_memory(configs: Iterable[RunConfig | FrozenConfig], *, device: torch.device, side_by_side: int = 1) -> None:
    """Refuse runs that need more memory than is free.

    Args:
        configs: the runs.
        device: where they learn.
        side_by_side: how many run at once; the largest are counted.

    Raises:
        ConfigError: they need more.
    """
    largest = heapq.nlargest(side_by_side, configs, key=lambda config: memory_of(config).total)
    if not largest:
        return
    needed = [memory_of(config).on(device) for config in largest]
    free = [("memory", float(psutil.virtual_memory().available))]
    if device.type == "cuda":
        free.append(("the GPU's memory", float(torch.cuda.mem_get_info(device)[0])))
    for place, (name, available) in enumerate(free):
        total = sum(each[place] for each in needed)
        if total > available:
            raise ConfigError(
                f"{_runs(largest)} about {total / 1e9:,.1f} GB of {name}, and {available / 1e9:,.1f} GB are free: give"
                + (" fewer environments" if len(largest) == 1 else " fewer environments or --workers")
            )


def _runs(largest: list[RunConfig | FrozenConfig]) -> str:
    num_envs = max(map(_most_envs, largest))
    what = f"{num_envs:,} environments"
    return f"a run of {what} needs" if len(largest) == 1 else f"{len(largest)} runs of up to {what} need"
