from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from rl_scaling.envs import AtariVector, Transition, atari
from rl_scaling.envs.config import AtariConfig

from .reference import PlainGame, Recorder, episodes, play_from


@pytest.mark.parametrize("game", ["Breakout", "Pong", "SpaceInvaders", "Qbert"])
def test_gives_what_the_plain_emulator_gives(
    game: str, open_atari: Callable[..., AtariVector], recorders: list[Recorder]
) -> None:
    """Pixels, rewards, ends, lives, limits, resets and scores against one plain emulator per environment."""
    limit = 150
    vector = open_atari(game, episode_emulator_frames=4 * limit)
    first = vector.reset(3)
    (recorder,) = recorders
    plain = [PlainGame(recorder.rom, recorder.seeds[0] + i) for i in range(2)]
    expected = [p.start(int(recorder.last_info["episode_frame_number"][i])) for i, p in enumerate(plain)]
    assert first.dtype == np.uint8
    assert first.shape == (2, *vector.observation_shape)
    _assert_same_pixels(first, np.stack(expected))
    over, score, frames = [False] * 2, [0.0] * 2, [0] * 2
    random = np.random.default_rng(1)
    seen = {"terminated": 0, "truncated": 0, "reset": 0}
    for _ in range(330):
        actions = random.integers(vector.num_actions, size=2)
        step = vector.step(actions)
        for i, game_ in enumerate(plain):
            if over[i]:
                expected[i] = game_.start(int(recorder.last_info["episode_frame_number"][i]))
                assert not step.valid[i]
                assert (step.rewards[i], step.terminated[i], step.truncated[i]) == (0, False, False)
                over[i], score[i], frames[i] = False, 0.0, 0
                seen["reset"] += 1
                continue
            expected[i], reward, game_over, lost = game_.step(int(actions[i]))
            score[i], frames[i] = score[i] + reward, frames[i] + 1
            over[i] = game_over or frames[i] == limit
            assert step.valid[i]
            assert step.rewards[i] == np.sign(reward)
            assert step.terminated[i] == (game_over or lost)
            assert step.truncated[i] == (frames[i] == limit and not (game_over or lost))
            assert (i in step.finished) == over[i]
            if over[i]:
                where = list(step.finished).index(i)
                assert (step.episode_scores[where], step.episode_frames[where]) == (score[i], frames[i])
            seen["terminated"] += bool(step.terminated[i])
            seen["truncated"] += bool(step.truncated[i])
            if not game_over:  # there the newest frame is a blend, but nothing is ever learned from it
                _assert_same_pixels(step.observations[i], expected[i])
    assert seen["reset"] >= 2
    assert seen["truncated"] + seen["terminated"] >= 2


def _assert_same_pixels(observations: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(observations - expected)
    assert difference.max() <= 1  # rounding of exact halves
    assert (difference > 0).mean() < 0.02


def test_the_emulators_own_time_limit_shows_a_frame_that_never_was() -> None:
    """Why the limit is counted here: if this fails, ale-py has changed and `AtariVector` may become simpler."""
    limited, free = (
        atari.AtariVectorEnv("breakout", 1, max_num_frames_per_episode=frames, num_threads=1, life_loss_info=True)
        for frames in (400, 2**30)
    )
    before, _ = limited.reset(seed=3)
    free.reset(seed=3)
    for t in range(1, 101):
        actions = np.random.default_rng(t).integers(4, size=1)
        (
            stale,
            *_,
        ) = limited.step(actions)
        true, *_ = free.step(actions)
        assert np.array_equal(stale, true) == (t < 100)
        if t == 100:
            assert (stale[0, -1] >= before[0, -1]).all()
            assert (stale[0, -1] > true[0, -1]).any()
        before = stale


@pytest.mark.parametrize("game_over", [False, True])
def test_a_life_lost_at_the_time_limit_ends_the_game_once(
    game_over: bool, open_atari: Callable[..., AtariVector]
) -> None:
    """ale-py would report neither a truncation nor an end there, and reset unasked on the next step."""
    free = play_from(open_atari(num_envs=1), 5, 400)
    ends = {False: next(t for t, s in enumerate(free) if s.terminated[0]), True: episodes(free)[0][0]}
    steps = ends[game_over] + 1
    limited = play_from(open_atari(num_envs=1, episode_emulator_frames=4 * steps), 5, steps + 10)
    assert episodes(limited)[0][0] == steps - 1
    assert episodes(limited)[0][3] == steps
    last, reset, after = limited[steps - 1 : steps + 2]
    assert last.terminated[0]
    assert not last.truncated[0]
    assert not reset.valid[0]
    assert after.valid[0]
    assert [t for t, s in enumerate(limited) if not s.valid[0]] == [steps]


@pytest.fixture(scope="module")
def breakout_played() -> list[Transition]:
    """300 steps of two games of Breakout, from the seed 1."""
    with closing(AtariVector(AtariConfig(game="Breakout", num_envs=2, max_start_steps=0), num_threads=2)) as vector:
        return play_from(vector, 1, 300)


def test_lost_lives_end_the_return_only_if_asked_to(
    open_atari: Callable[..., AtariVector], breakout_played: list[Transition]
) -> None:
    with_lives = breakout_played
    without = play_from(open_atari(life_loss_terminates=False), 1, 300)
    assert episodes(with_lives) == episodes(without)
    games = np.zeros((300, 2), bool)
    for t, env, *_ in episodes(without):
        games[t, env] = True
    assert games.any()
    assert np.array_equal(np.stack([s.terminated for s in without]), games)
    assert np.stack([s.terminated for s in with_lives]).sum() == 5 * games.sum() + _lives_lost_since(with_lives, games)
    assert all(np.array_equal(a.observations, b.observations) for a, b in zip(with_lives, without, strict=True))


def _lives_lost_since(transitions: list[Transition], games: np.ndarray) -> int:
    """Ends of lives after the last game that ended, in each environment."""
    ends = np.stack([s.terminated for s in transitions])
    return sum(int(ends[np.flatnonzero(games[:, i])[-1] + 1 :, i].sum()) for i in range(games.shape[1]))


class Adventure(atari.AtariVectorEnv):
    """Says what ale-py says of Adventure, where a dragon ends the game with a life left."""

    def recv(self) -> Any:
        observations, rewards, ends, truncations, info = super().recv()
        return observations, rewards, ends, truncations, info | {"lives": np.maximum(info["lives"], 1)}


def test_a_game_may_end_with_lives_left(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch, breakout_played: list[Transition]
) -> None:
    monkeypatch.setattr(atari, "AtariVectorEnv", Adventure)
    altered = play_from(open_atari(), 1, 300)
    assert episodes(altered) == episodes(breakout_played) != []


@pytest.mark.slow
@pytest.mark.parametrize("game", ["Adventure", "Alien", "BeamRider", "Seaquest", "Krull", "Pitfall", "Freeway"])
def test_the_steps_not_valid_are_the_emulators_resets(
    game: str, open_atari: Callable[..., AtariVector], recorders: list[Recorder]
) -> None:
    transitions = play_from(open_atari(game, num_envs=8), 1, 2_500)
    frames = np.stack([s[4] for s in recorders[0].steps])
    resets = np.vstack([np.zeros((1, 8), bool), np.diff(frames, axis=0) < 0])
    assert np.array_equal(~np.stack([s.valid for s in transitions]), resets)
