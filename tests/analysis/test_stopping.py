from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from rl_scaling.analysis import GoalTracker, Progress, leading_rates, rate_can_still_win
from tests.analysis.made_runs import front, made_run
from tests.analysis.reference import can_still_win

GOALS = [1.0, 2.0, 4.0, 7.0]
RATES = [1e-4, 3e-4, 1e-3, 3e-3]
Key = tuple[float, int]
Decide = Callable[[Key, dict[Key, GoalTracker], dict[Key, bool]], bool]


def test_wins_while_some_open_goal_is_open_to_all() -> None:
    assert can_still_win(100, {}, [], GOALS)
    assert can_still_win(100, {1.0: 50}, [{1.0: 40, 2.0: 90, 4.0: 100.5, 7.0: 99}], GOALS)
    assert not can_still_win(100, {1.0: 50}, [{1.0: 40, 2.0: 90}, {4.0: 100, 7.0: 99}], GOALS)
    assert not can_still_win(100, dict.fromkeys(GOALS, 10.0), [], GOALS)


def test_with_one_seed_both_rules_agree() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        used = float(rng.integers(1, 100))
        reached = [{g: float(rng.integers(1, 120)) for g in GOALS if rng.random() < 0.5} for _ in range(3)]
        own = {goal: min(t, used) for goal, t in reached[0].items()}
        one = can_still_win(used, own, reached[1:], GOALS)
        several = rate_can_still_win(Progress(used, own), [], [[Progress(120, r)] for r in reached[1:]], GOALS)
        assert one == several


def test_a_seed_that_has_not_begun_leaves_everything_open() -> None:
    rival = [Progress(9, {1.0: 5.0}), Progress(9, {1.0: 5.0})]
    assert rate_can_still_win(Progress(1e9, {}), [Progress(0, {})], [rival], [1.0])
    assert not rate_can_still_win(Progress(10, {}), [Progress(10, {})], [rival], [1.0])


def test_a_seed_that_failed_closes_the_goal_for_its_rate() -> None:
    assert not rate_can_still_win(Progress(1, {}), [Progress(5, {}, ended=True)], [], [1.0])
    assert rate_can_still_win(Progress(1, {}), [Progress(5, {1.0: 4.0}, ended=True)], [], [1.0])


def test_a_rival_is_certain_only_with_all_its_seeds() -> None:
    rival = [Progress(9, {1.0: 1.0}), Progress(9, {})]
    assert rate_can_still_win(Progress(50, {}), [Progress(50, {})], [rival], [1.0])


def noisy_runs(rng: np.random.Generator, seeds: int) -> dict[Key, pd.DataFrame]:
    """Runs of one batch size whose scores wander upwards at rates that differ little between learning rates."""
    runs = {}
    for rate in RATES:
        for seed in range(seeds):
            rows = int(rng.integers(20, 60))
            score = np.cumsum(rng.normal(0.25, 0.6, rows)) * rng.uniform(0.6, 1.4)
            episodes = rng.integers(0, 30, rows)
            updates = np.cumsum(rng.integers(1, 40, rows))
            runs[rate, seed] = made_run(40, rate, seed, updates=updates, score=score, episodes=episodes)
    return runs


def play(runs: dict[Key, pd.DataFrame], rng: np.random.Generator, wins: Decide) -> tuple[pd.DataFrame, int]:
    """Runs all side by side in a random order of rows, stopping what cannot win; also the rows that were saved."""
    columns = ["updates", "examples", "score", "episodes"]
    rows = {key: run[columns].to_numpy(float).tolist() for key, run in runs.items()}
    trackers = {key: GoalTracker(GOALS) for key in runs}
    done = dict.fromkeys(runs, 0)
    stopped = dict.fromkeys(runs, False)
    while going := [key for key in runs if not stopped[key] and done[key] < len(runs[key])]:
        key = going[rng.integers(len(going))]
        trackers[key].update(*rows[key][done[key]])
        done[key] += 1
        ended = {other: stopped[other] or done[other] == len(runs[other]) for other in runs}
        stopped[key] = done[key] < len(runs[key]) and not wins(key, trackers, ended)
    cut = [
        runs[key].iloc[: done[key]].assign(status="stopped" if stopped[key] else "done")
        for key in runs
        if done[key] > 0
    ]
    return pd.concat(cut, ignore_index=True), sum(len(run) for run in runs.values()) - sum(done.values())


def moments(tracker: GoalTracker) -> dict[float, float]:
    return {goal: hit.updates for goal, hit in tracker.reached.items()}


def wins_within_its_seed(key: Key, trackers: dict[Key, GoalTracker], ended: dict[Key, bool]) -> bool:
    rivals = [moments(t) for (rate, seed), t in trackers.items() if seed == key[1] and rate != key[0]]
    return can_still_win(trackers[key].updates, trackers[key].reached, rivals, GOALS)  # pyright: ignore[reportArgumentType]


def wins_over_seeds(key: Key, trackers: dict[Key, GoalTracker], ended: dict[Key, bool]) -> bool:
    progress = {k: Progress(t.updates, moments(t), ended[k]) for k, t in trackers.items()}
    siblings = [p for k, p in progress.items() if k[0] == key[0] and k != key]
    rivals = [[p for k, p in progress.items() if k[0] == rate] for rate in RATES if rate != key[0]]
    return rate_can_still_win(progress[key], siblings, rivals, GOALS)


@pytest.mark.parametrize(("seeds", "wins"), [(1, wins_within_its_seed), (3, wins_over_seeds)])
def test_stopping_changes_no_front(seeds: int, wins: Decide) -> None:
    saved = 0
    for repetition in range(8):
        rng = np.random.default_rng([repetition, seeds])
        runs = noisy_runs(rng, seeds)
        whole = front(pd.concat(runs.values(), ignore_index=True), GOALS)
        table, rows = play(runs, rng, wins)
        pd.testing.assert_frame_equal(front(table, GOALS), whole)
        saved += rows
    assert saved > 30


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_leading_rates_are_those_on_the_front(seeds: int) -> None:
    for repetition in range(8):
        rng = np.random.default_rng([repetition, seeds])
        runs = noisy_runs(rng, seeds)
        runs = {key: run for key, run in runs.items() if key[1] == 0 or rng.random() < 0.5}  # not all seeds everywhere
        rates: dict[float, list[Progress]] = {}
        for (rate, _), run in runs.items():
            tracker = GoalTracker(GOALS)
            for row in run[["updates", "examples", "score", "episodes"]].to_numpy(float).tolist():
                tracker.update(*row)
            rates.setdefault(rate, []).append(Progress(tracker.updates, moments(tracker), ended=True))
        on_front = front(pd.concat(runs.values(), ignore_index=True), GOALS)["learning_rate"]
        assert leading_rates(rates, GOALS) == sorted(on_front.unique())


def test_looking_at_one_seed_alone_can_change_a_front_of_several() -> None:
    """Why `rate_can_still_win` exists: the rate that is second with seed 0 is far ahead with seed 1."""
    first = {(1e-3, 0): 110.0, (1e-3, 1): 10.0, (3e-3, 0): 100.0, (3e-3, 1): 100.0}
    assert math.sqrt(110 * 10) < 100
    assert not can_still_win(101, {}, [{1.0: first[3e-3, 0]}], [1.0])
    rival = [Progress(200, {1.0: first[3e-3, seed]}) for seed in (0, 1)]
    assert rate_can_still_win(Progress(101, {}), [Progress(101, {1.0: first[1e-3, 1]})], [rival], [1.0])
