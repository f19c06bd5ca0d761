from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats

from rl_scaling.envs import AtariVector, atari
from rl_scaling.envs.config import AtariConfig

from .reference import Recorder, episodes, play, play_from


def test_the_same_seed_gives_the_same_trajectory_for_any_threads_and_pools(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(num_threads: int, pool: int) -> AtariVector:
        monkeypatch.setattr(atari, "ENVS_PER_POOL", pool)
        return open_atari(num_envs=3, num_threads=num_threads, max_start_steps=40, sticky_action_probability=0.25)

    def trajectory(vector: AtariVector, seed: int) -> list[np.ndarray]:
        first = vector.reset(seed)
        steps = play(vector, 140)
        assert any(not s.valid.all() for s in steps)
        columns = ("observations", "rewards", "terminated", "truncated", "valid")
        return [first] + [np.stack([getattr(s, c) for s in steps]) for c in columns] + [np.array(episodes(steps))]

    vector = started(1, 64)
    one = trajectory(vector, 7)
    for threads, pool in ((3, 64), (2, 2)):
        assert all(np.array_equal(a, b) for a, b in zip(one, trajectory(started(threads, pool), 7), strict=True))
    assert not np.array_equal(one[1], trajectory(vector, 8)[1])


def test_reset_again_with_the_same_seed_starts_the_same_games(open_atari: Callable[..., AtariVector]) -> None:
    vector = open_atari(max_start_steps=30)
    first = vector.reset(7)
    before = play(vector, 200)
    assert np.array_equal(first, vector.reset(7))
    after = play(vector, 200)
    assert all(np.array_equal(a.observations, b.observations) for a, b in zip(before, after, strict=True))
    assert episodes(before) == episodes(after)


def test_runs_with_neighbouring_seeds_share_no_emulator_seed(
    open_atari: Callable[..., AtariVector], recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atari, "ENVS_PER_POOL", 2)
    vector = open_atari(num_envs=3)
    for seed in range(3):
        vector.reset(seed)
    used = [seed + i for r in recorders for seed in r.seeds for i in range(r.num_envs)]
    assert len(used) == len(set(used)) == 9


class NoEmulator:
    """As many environments as wanted that do nothing; counts the steps since each was reset."""

    last: NoEmulator

    def __init__(self, rom: str, num_envs: int, **kwargs: Any) -> None:
        self.ale, self.played = self, np.zeros(num_envs, int)
        self.actions: list[np.ndarray] = []
        NoEmulator.last = self

    def get_action_set(self) -> list[int]:
        return [0, 1, 2]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        mask = np.ones(len(self.played), bool) if options is None else options["reset_mask"]
        self.played[mask] = 0
        return np.zeros((len(self.played), 1), np.uint8), {"lives": np.ones(len(self.played), int)}

    def send(self, actions: np.ndarray) -> None:
        self.actions.append(actions)

    def recv(self) -> Any:
        self.played += 1
        n = len(self.played)
        return np.zeros((n, 1), np.uint8), np.ones(n, int), *np.zeros((2, n), bool), {"lives": np.ones(n, int)}


@pytest.mark.statistical
def test_the_random_start_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chi-squared tests at a significance of 1e-4 each."""
    monkeypatch.setattr(atari, "AtariVectorEnv", NoEmulator)
    monkeypatch.setattr(atari, "ENVS_PER_POOL", 10**6)
    vector = AtariVector(AtariConfig(game="Pong", num_envs=20_000, max_start_steps=40))
    vector.reset(0)
    counts = np.bincount(NoEmulator.last.played)
    assert len(counts) == 41  # both ends are reached
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    assert scipy.stats.chisquare(np.bincount(np.concatenate(NoEmulator.last.actions))).pvalue > 1e-4


def test_only_games_played_by_the_learner_alone_are_reported(
    open_atari: Callable[..., AtariVector], recorders: list[Recorder]
) -> None:
    """Against the emulator's own stream, game by game."""
    vector = open_atari(num_envs=4, max_start_steps=150)
    vector.reset(0)
    (recorder,) = recorders
    begun = len(recorder.steps)
    transitions = play(vector, 300)
    expected = []
    for env in range(4):
        game_began = max([0] + [at for at, mask in recorder.masks if mask[env]])
        score, frames, previous_frame, resetting = 0, 0, 0, False
        for t in range(game_began, len(recorder.steps)):
            reward, ends, _, lives, episode_frame = (column[env] for column in recorder.steps[t])
            if resetting:
                assert episode_frame < previous_frame
                game_began, score, frames, resetting = t, 0, 0, False
            else:
                score, frames, resetting = score + reward, frames + 1, ends and lives == 0
                if resetting and game_began >= begun:
                    expected.append((t - begun, env, score, frames))
            previous_frame = episode_frame
    assert sorted(episodes(transitions)) == sorted(expected) != []


def test_a_game_without_random_steps_counts_from_the_start(open_atari: Callable[..., AtariVector]) -> None:
    at, _, _, frames = episodes(play_from(open_atari(), 0, 300))[0]
    assert frames == at + 1
