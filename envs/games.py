"""The seven Atari games of McCandlish et al. 2018 with the scores to reach, all others by name, and MinAtar's five."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ale_py.roms import get_all_rom_ids

from rl_scaling.config import ConfigError
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, MinAtarConfig, letters, nearest

MINATAR = "minatar/"


@dataclass(frozen=True)
class Game:
    """One game.

    Attributes:
        name: as in ale-py's environment ids, "SpaceInvaders"; of MinAtar "minatar/space_invaders".
        rom: as ale-py names the file, and MinAtar the module: "space_invaders".
        goals: raw scores per game, evenly spaced from just above random play to what good agents reach: on Atari about
            the published A2C score.
        random_score: mean raw score of random play (scripts/random_scores.py); NaN where it was not measured.
        published_a2c_score: after 10 M agent steps; NaN where there is none.
    """

    name: str
    rom: str
    goals: tuple[float, ...] = ()
    random_score: float = float("nan")
    published_a2c_score: float = float("nan")

    @property
    def folder(self) -> str:
        """The name as that of a folder: "spaceinvaders", "minatar-space_invaders"."""
        return self.name.lower().replace("/", "-")

    def environment(self, **options: Any) -> EnvironmentConfig:
        """Copies of it, `num_envs` and how they are played: fields of an `AtariConfig` or a `MinAtarConfig`."""
        if self.name.startswith(MINATAR):
            return MinAtarConfig(game=self.rom, **options)
        return AtariConfig(game=self.name, **options)


def _evenly(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(float(first + step * i) for i in range(round((last - first) / step) + 1))


# Random scores: `python scripts/random_scores.py`, 128 games each; standard errors 6.5, 14, 0.10, 0.08, 10, 5.4 and 10.
# Published scores: Stable-Baselines3 zoo, A2C; Alien: Schulman et al. 2017 (PPO), table 6.
GAMES: dict[str, Game] = {
    game.name: game
    for game in (
        Game("Alien", "alien", _evenly(250, 1_150, 50), 192.4, 1_142),
        Game("BeamRider", "beam_rider", _evenly(500, 2_900, 150), 385.1, 2_890),
        Game("Breakout", "breakout", _evenly(5, 275, 15), 1.09, 280),
        Game("Pong", "pong", _evenly(-19, 17, 2), -20.35, 17.3),
        Game("Qbert", "qbert", _evenly(250, 3_850, 200), 129.5, 3_882),
        Game("Seaquest", "seaquest", _evenly(120, 1_720, 80), 74.8, 1_721),
        Game("SpaceInvaders", "space_invaders", _evenly(200, 625, 25), 155.4, 627),
    )
}
# Random scores: `python scripts/random_scores.py --games minatar/all --num-envs 10 --games-each 100`, 1,000 games each;
# standard errors 0.03, 0.02, 0.02, 0.01 and 0.10. The goals go beyond what PPO (64 environments, learning rate 1e-3)
# reached and was still improving on: 5 in Asterix after 1.05 million frames, 14 in Breakout (1.5), 42 in Freeway (0.8),
# 3 in Seaquest (0.8), 48 in Space Invaders (1.5).
MINATAR_GAMES: dict[str, Game] = {
    game.name: game
    for game in (
        Game("minatar/asterix", "asterix", _evenly(1, 13, 0.5), 0.53),
        Game("minatar/breakout", "breakout", _evenly(1, 25, 1), 0.39),
        Game("minatar/freeway", "freeway", _evenly(3, 60, 3), 0.40),
        Game("minatar/seaquest", "seaquest", _evenly(0.5, 12.5, 0.5), 0.10),
        Game("minatar/space_invaders", "space_invaders", _evenly(8, 152, 6), 4.00),
    )
}
# Games for two that have no one-player mode.
_TWO_PLAYERS_ONLY = {"combat", "joust", "maze_craze", "warlords"}


def _bare(name: str) -> str:
    """The letters and digits of a game's name, without "ALE/" and version."""
    return letters(re.sub(r"^ale/|(noframeskip|deterministic)?-v\d+$", "", name.strip().lower()))


def find_game(name: str) -> Game:
    """A game by any of the names people use: "pong", "Q*bert", "ALE/Pong-v5", "minatar/space-invaders".

    Raises:
        ConfigError: no such game; the message names the nearest.
    """
    if name.strip().lower().startswith(MINATAR):
        return _find_minatar_game(name)
    roms = {_bare(rom): rom for rom in get_all_rom_ids() if rom not in _TWO_PLAYERS_ONLY}
    bare = _bare(name)
    if bare not in roms:
        raise ConfigError(f"no game {name!r}; {nearest(bare, map(_name_of, roms.values()), GAMES)}")
    return GAMES.get(_name_of(roms[bare])) or Game(_name_of(roms[bare]), roms[bare])


def _find_minatar_game(name: str) -> Game:
    games = {_bare(game.rom): game for game in MINATAR_GAMES.values()}
    bare = _bare(name.strip()[len(MINATAR) :])
    if bare not in games:
        raise ConfigError(f"no game {name!r}; {nearest(bare, MINATAR_GAMES)}")
    return games[bare]


def find_games(names: Sequence[str]) -> list[Game]:
    """Games by name, each once; "all" alone stands for the seven of the paper, "minatar/all" for MinAtar's five.

    Raises:
        ConfigError: no such game; the message names the nearest.
    """
    several = {"all": GAMES, f"{MINATAR}all": MINATAR_GAMES}
    if len(names) == 1 and names[0].lower() in several:
        return list(several[names[0].lower()].values())
    return list({(game := find_game(name)).name: game for name in names}.values())


def _name_of(rom: str) -> str:
    return rom.title().replace("_", "")
