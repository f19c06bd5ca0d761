"""Which environment, and how many copies of it."""

from __future__ import annotations

import difflib
import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from rl_scaling.config import Config, ConfigError, one_of_kinds, require, require_fraction, require_positive


@dataclass(frozen=True, kw_only=True)
class EnvironmentConfig(Config):
    """Copies of one environment that are stepped together.

    Attributes:
        num_envs: the number of copies.

    Class attributes:
        kind: what stands for the class in plain data.
        family: what environments of this kind are called.
        networks: those that fit, the customary one first; empty where only the observations tell.
    """

    kind: ClassVar[str]
    family: ClassVar[str]
    networks: ClassVar[tuple[str, ...]] = ()
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
    family: ClassVar[str] = "Atari"
    game: str
    frame_skip: int = 4
    sticky_action_probability: float = 0.0
    max_start_steps: int = 500
    life_loss_terminates: bool = True

    def check(self) -> None:
        """See `Config.check`."""
        super().check()
        require(not self.game.lower().startswith("minatar/"), f"{self.game} is a game of MinAtar: give one of Atari")
        require_positive(self, "frame_skip")
        require_fraction(self, "sticky_action_probability")
        require(self.max_start_steps >= 0, f"max_start_steps is {self.max_start_steps}: give 0 or more")

    @property
    def name(self) -> str:
        return self.game


# The games of MinAtar with their kinds of objects, each of which has a channel of the observation.
MINATAR_CHANNELS = {"asterix": 4, "breakout": 4, "freeway": 7, "seaquest": 10, "space_invaders": 6}


@dataclass(frozen=True, kw_only=True)
class MinAtarConfig(EnvironmentConfig):
    """One game of MinAtar (Young & Tian 2019), many copies of it at once.

    Attributes:
        game: the game's name as the package spells it ("breakout", "space_invaders").
        num_envs: the number of copies.
        sticky_action_probability: probability that the game repeats the previous action, 0.1 in the paper.
        difficulty_ramping: Asterix, Seaquest and Space Invaders become faster as a game goes on.
        minimal_actions: only the actions that do something in the game, as for Atari and in the package's "-v1"
            environments; otherwise all six, as in the paper.
        max_episode_steps: a game is cut after this many steps; 0: never. The package itself ends Freeway after 2501
            steps and no other game.
        max_start_steps: each environment begins after a random number of random steps, at most this many. They are
            not needed: games of a few dozen steps soon drift apart. In Freeway, where all end together, they spread
            the scores over the run.
    """

    kind: ClassVar[str] = "minatar"
    family: ClassVar[str] = "MinAtar"
    networks: ClassVar[tuple[str, ...]] = ("minatar", "mlp")
    game: str
    sticky_action_probability: float = 0.1
    difficulty_ramping: bool = True
    minimal_actions: bool = True
    max_episode_steps: int = 5_000
    max_start_steps: int = 0

    def check(self) -> None:
        """See `Config.check`."""
        super().check()
        require(self.game in MINATAR_CHANNELS, f"no MinAtar game {self.game!r}; {nearest(self.game, MINATAR_CHANNELS)}")
        require_fraction(self, "sticky_action_probability")
        for name in ("max_episode_steps", "max_start_steps"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: give 0 (none) or more")

    @property
    def name(self) -> str:
        return f"minatar/{self.game}"


def nearest(name: str, names: Iterable[str], otherwise: Iterable[str] = ()) -> str:
    """The names most like one that does not exist, in words; where none is, those to show `otherwise` (or all).

    >>> nearest("Braek out", MINATAR_CHANNELS)
    'nearest: breakout'
    """
    known = {letters(known): known for known in names}
    found = [known[match] for match in difflib.get_close_matches(letters(name), known, n=3, cutoff=0.6)]
    return f"nearest: {', '.join(found)}" if found else f"some there are: {', '.join(otherwise or known.values())}"


def letters(name: str) -> str:
    """The letters and digits of a name, by which names are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


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
    family: ClassVar[str] = "Gymnasium"
    env_id: str

    @property
    def name(self) -> str:
        return self.env_id


ENVIRONMENTS: dict[str, type[EnvironmentConfig]] = {c.kind: c for c in (AtariConfig, MinAtarConfig, GymnasiumConfig)}


def find_environment(kind: str) -> type[EnvironmentConfig]:
    """The config of a kind of environment.

    Raises:
        ConfigError: there is none.
    """
    if kind not in ENVIRONMENTS:
        raise ConfigError(f"unknown environment kind {kind!r}: it needs a newer rl-scaling")
    return ENVIRONMENTS[kind]


one_of_kinds(EnvironmentConfig, find_environment)
