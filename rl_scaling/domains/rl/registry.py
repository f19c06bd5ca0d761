"""The algorithms by name: your own algorithm is one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rl_scaling.agents.config import AlgorithmConfig
from rl_scaling.config import ConfigError, one_of_kinds

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from rl_scaling.agents import Agent

# Where each algorithm's config and agent are; loaded when they are needed.
ALGORITHMS: dict[str, tuple[str, str]] = {
    "a2c": ("rl_scaling.agents.config:A2CConfig", "rl_scaling.agents.a2c:A2C"),
    "ppo": ("rl_scaling.agents.config:PPOConfig", "rl_scaling.agents.ppo:PPO"),
    "ppo-ewma": ("rl_scaling.agents.config:PPOEWMAConfig", "rl_scaling.agents.ppo_ewma:PPOEWMA"),
}

# Those whose agents train side by side (`Agent.step_together`); runs of the others train alone.
SIDE_BY_SIDE = ("a2c", "ppo")


def find_algorithm(kind: str) -> type[AlgorithmConfig]:
    """The config of an algorithm.

    Raises:
        ConfigError: there is none of this name.
    """
    if kind not in ALGORITHMS:
        *others, last = ALGORITHMS
        known = f"{', '.join(others)} or {last}"
        raise ConfigError(f"no algorithm {kind!r}: give {known}, or it needs a newer rl-scaling")
    return _load(ALGORITHMS[kind][0])


def make_agent(
    config: AlgorithmConfig, observation_shape: tuple[int, ...], num_actions: int | Space[Any], **options: Any
) -> Agent[Any]:
    """The agent of the algorithm whose settings these are; arguments as `Agent`."""
    config = config.as_algorithm
    return _load(ALGORITHMS[config.kind][1])(config, observation_shape, num_actions, **options)


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)


one_of_kinds(AlgorithmConfig, find_algorithm)
