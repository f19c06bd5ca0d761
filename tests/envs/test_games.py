from __future__ import annotations

import re

import gymnasium
import numpy as np
import pytest

from rl_scaling.config import ConfigError
from rl_scaling.envs import GAMES, MINATAR_GAMES, Game, find_game, find_games
from rl_scaling.envs.config import MINATAR_CHANNELS, AtariConfig, MinAtarConfig


def test_the_seven_games_of_the_paper_are_there() -> None:
    assert list(GAMES) == ["Alien", "BeamRider", "Breakout", "Pong", "Qbert", "Seaquest", "SpaceInvaders"]
    assert all(name == game.name for name, game in GAMES.items())


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())
def test_goals_are_even_and_run_from_just_above_random_play_to_about_the_published_score(game: Game) -> None:
    gaps = np.diff(game.goals)
    assert np.allclose(gaps, gaps[0])
    assert gaps[0] > 0
    span = game.published_a2c_score - game.random_score
    assert 0 < game.goals[0] - game.random_score < 0.11 * span
    assert abs(game.goals[-1] - game.published_a2c_score) < 0.05 * span
    assert 15 <= len(game.goals) <= 25


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Pong", "Pong"),
        ("pong", "Pong"),
        ("ALE/Pong-v5", "Pong"),
        ("PongNoFrameskip-v4", "Pong"),
        ("PongDeterministic-v4", "Pong"),
        ("Q*bert", "Qbert"),
        ("QBERT", "Qbert"),
        ("space_invaders", "SpaceInvaders"),
        ("Space Invaders", "SpaceInvaders"),
        ("space-invaders", "SpaceInvaders"),
        ("Beam Rider", "BeamRider"),
        (" beamrider ", "BeamRider"),
    ],
)
def test_games_are_found_by_the_names_people_use(written: str, name: str) -> None:
    assert find_game(written) is GAMES[name]


def test_every_other_game_is_found_without_goals() -> None:
    game = find_game("ms. pac-man")
    assert (game.name, game.rom, game.goals) == ("MsPacman", "ms_pacman", ())
    assert np.isnan(game.random_score)


def test_names_are_those_of_ale_py() -> None:
    ids = [re.fullmatch(r"ALE/(\w+)-v5", i) for i in gymnasium.registry]
    names = [match[1] for match in ids if match]
    assert len(names) > 90
    assert [find_game(name).name for name in names] == names
    assert [find_game(find_game(name).rom).name for name in names] == names


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("Braekout", "nearest: Breakout"),
        ("Pog", "nearest: Pong"),
        ("xyzzy", "some there are: Alien"),
        ("", "there are"),
    ],
)
def test_a_game_that_does_not_exist_is_refused_with_the_nearest(written: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"no game {written!r}; ") + ".*" + hint) as caught:
        find_game(written)
    assert "\n" not in str(caught.value)


def test_games_for_two_only_are_refused() -> None:
    with pytest.raises(ConfigError, match="no game 'Warlords'"):
        find_game("Warlords")


def test_the_five_games_of_minatar_are_there() -> None:
    assert [game.rom for game in MINATAR_GAMES.values()] == list(MINATAR_CHANNELS)
    for name, game in MINATAR_GAMES.items():
        environment = game.environment(num_envs=3, sticky_action_probability=0.2)
        assert name == game.name == environment.name
        assert environment == MinAtarConfig(game=game.rom, num_envs=3, sticky_action_probability=0.2)
    assert find_game("pong").environment(num_envs=3) == AtariConfig(game="Pong", num_envs=3)


@pytest.mark.parametrize("game", MINATAR_GAMES.values(), ids=MINATAR_GAMES.keys())
def test_goals_of_minatar_are_even_and_begin_just_above_random_play(game: Game) -> None:
    gaps = np.diff(game.goals)
    assert np.allclose(gaps, gaps[0])
    assert gaps[0] > 0
    span = game.goals[-1] - game.random_score
    assert 0 < game.goals[0] - game.random_score < 0.11 * span
    assert 15 <= len(game.goals) <= 25


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("minatar/breakout", "minatar/breakout"),
        ("MinAtar/Breakout-v1", "minatar/breakout"),
        ("minatar/space-invaders", "minatar/space_invaders"),
        ("minatar/SpaceInvaders", "minatar/space_invaders"),
        (" MinAtar/Space Invaders ", "minatar/space_invaders"),
    ],
)
def test_minatar_games_are_found_by_the_names_people_use(written: str, name: str) -> None:
    assert find_game(written) is MINATAR_GAMES[name]


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("minatar/braekout", "nearest: minatar/breakout"),
        ("minatar/pong", "some there are: minatar/asterix, minatar/breakout"),
        ("minatar/", "some there are: minatar/asterix"),
    ],
)
def test_a_minatar_game_that_does_not_exist_is_refused_with_the_nearest(written: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"no game {written!r}; {hint}")):
        find_game(written)


def test_several_games() -> None:
    assert find_games(["all"]) == list(GAMES.values())
    assert find_games(["minatar/all"]) == list(MINATAR_GAMES.values())
    mixed = find_games(["pong", "minatar/breakout", "Pong", "breakout"])
    assert [game.name for game in mixed] == ["Pong", "minatar/breakout", "Breakout"]
    assert [game.folder for game in mixed] == ["pong", "minatar-breakout", "breakout"]
    with pytest.raises(ConfigError, match="no game 'all'"):
        find_games(["all", "pong"])
