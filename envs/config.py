"""Which environment, and how many copies of it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from rl_scaling.config import Config, ConfigError, one_of_kinds, require, require_fraction, require_positive


@dataclass(frozen=True, kw_only=True)
class EnvironmentConfig(Config):
    """Copies of one environment that are stepped together.

    Attributes:
        num_envs: the number of copies.
    """

    kind: ClassVar[str]
    num_envs: int = 16

    def check(self) -> None:
        """See `Config.check`."""
        require_positive(self, "num_envs")

    @property
    @abstractmethod
    def name(self) -> str:
        """What is played, for people."""


@dataclass(frozen=True, kw_only=True)
class AtariConfig(EnvironmentConfig):
    """One Atari game, many copies of it at once.

    Attributes:
        game: the game's name as ale-py spells it in its environment ids ("Breakout", "SpaceInvaders").
        num_envs: the number of copies.
        frame_skip: emulator frames per agent step; all other counts of frames are agent steps.
        sticky_action_probability: probability that the emulator repeats the previous action.
        max_start_steps: each environment begins after a random number of random steps, at most this many.
        life_loss_terminates: a lost life ends the return (the game continues), as in the Baselines.
    """

    kind: ClassVar[str] = "atari"
    game: str
    frame_skip: int = 4
    sticky_action_probability: float = 0.0
    max_start_steps: int = 500
    life_loss_terminates: bool = True

    def check(self) -> None:
        """See `Config.check`."""
        super().check()
        require_positive(self, "frame_skip")
        require_fraction(self, "sticky_action_probability")
        require(self.max_start_steps >= 0, f"max_start_steps is {self.max_start_steps}: give 0 or more")

    @property
    def name(self) -> str:
        return self.game


@dataclass(frozen=True, kw_only=True)
class GymnasiumConfig(EnvironmentConfig):
    """Any environment that Gymnasium knows.

    Attributes:
        env_id: as Gymnasium has it, "CartPole-v1"; "module:EnvId" imports the module first, and calls its
            `register_envs()` where the environment is not registered by then. Not for those that a program registers
            itself: other processes would not know them.
        num_envs: the number of copies.
    """

    kind: ClassVar[str] = "gymnasium"
    env_id: str

    @property
    def name(self) -> str:
        return self.env_id


ENVIRONMENTS: dict[str, type[EnvironmentConfig]] = {c.kind: c for c in (AtariConfig, GymnasiumConfig)}


def find_environment(kind: str) -> type[EnvironmentConfig]:
    """The config of a kind of environment.

    Raises:
        ConfigError: there is none.
    """
    if kind not in ENVIRONMENTS:
        raise ConfigError(f"unknown environment kind {kind!r}: it needs a newer rl-scaling")
    return ENVIRONMENTS[kind]


one_of_kinds(EnvironmentConfig, find_environment)
