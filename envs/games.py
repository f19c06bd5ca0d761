"""The seven Atari games of McCandlish et al. 2018 with the scores to reach, and every other game by its name."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ale_py.roms import get_all_rom_ids

from rl_scaling.config import ConfigError


@dataclass(frozen=True)
class Game:
    """One game.

    Attributes:
        name: as in ale-py's environment ids, "SpaceInvaders".
        rom: as ale-py names the file, "space_invaders".
        goals: raw scores per game, evenly spaced from just above random play to about the published A2C score.
        random_score: mean raw score of random play (scripts/random_scores.py); NaN where it was not measured.
        published_a2c_score: after 10 M agent steps; NaN where there is none.
    """

    name: str
    rom: str
    goals: tuple[float, ...] = ()
    random_score: float = float("nan")
    published_a2c_score: float = float("nan")


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
# Games for two that have no one-player mode.
_TWO_PLAYERS_ONLY = {"combat", "joust", "maze_craze", "warlords"}


def _bare(name: str) -> str:
    """The letters and digits of a game's name, without "ALE/" and version."""
    name = re.sub(r"^ale/|(noframeskip|deterministic)?-v\d+$", "", name.strip().lower())
    return re.sub(r"[^a-z0-9]", "", name)


def find_game(name: str) -> Game:
    """A game by any of the names people use: "pong", "Q*bert", "space_invaders", "ALE/Pong-v5".

    Raises:
        ConfigError: no such game; the message names the nearest.
    """
    roms = {_bare(rom): rom for rom in get_all_rom_ids() if rom not in _TWO_PLAYERS_ONLY}
    bare = _bare(name)
    if bare not in roms:
        names = {_bare(rom): _name_of(rom) for rom in roms.values()}
        nearest = [names[b] for b in difflib.get_close_matches(bare, names, n=3, cutoff=0.6)]
        hint = f"nearest: {', '.join(nearest)}" if nearest else f"some there are: {', '.join(GAMES)}"
        raise ConfigError(f"no game {name!r}; {hint}")
    return GAMES.get(_name_of(roms[bare])) or Game(_name_of(roms[bare]), roms[bare])


def _name_of(rom: str) -> str:
    return rom.title().replace("_", "")
