from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rl_scaling.envs import EpisodeTally, check_actions


@given(npst.arrays(st.sampled_from([np.int8, np.int32, np.int64, np.uint16]), st.integers(1, 6)), st.integers(1, 20))
def test_actions_are_accepted_exactly_when_all_are_in_range(actions: np.ndarray, num_actions: int) -> None:
    if all(0 <= int(a) < num_actions for a in actions):
        check_actions(actions, len(actions), num_actions)
    else:
        with pytest.raises(ValueError, match="there is no action"):
            check_actions(actions, len(actions), num_actions)


@pytest.mark.parametrize("actions", [[0, 1], None, np.zeros(2), np.zeros(2, bool), np.zeros(3, int), np.array(0)])
def test_what_is_not_an_array_of_one_integer_each_is_refused(actions: Any) -> None:
    with pytest.raises(ValueError, match="actions"):
        check_actions(actions, 2, 4)


STEP = st.tuples(st.integers(-3, 3), st.booleans())  # reward, did the game end


@given(st.lists(st.lists(STEP, min_size=3, max_size=3), max_size=40), st.integers(0, 5))
def test_the_tally_reports_what_a_list_of_rewards_per_game_says(
    steps: list[list[tuple[int, bool]]], start: int
) -> None:
    """Three environments; the step after an end is a reset; games under way after `start` steps are disowned."""
    tally = EpisodeTally(3)
    games: list[list[float]] = [[], [], []]
    ours, resetting = [True] * 3, [False] * 3
    for t, row in enumerate(steps):
        if t == start:
            tally.disown_games_under_way()
            ours = [not game for game in games]
        valid = ~np.array(resetting)
        tally.add(np.array([reward for reward, _ in row]), valid)
        ended = np.array([end for _, end in row]) & valid
        expected = []
        for i, (reward, _) in enumerate(row):
            if valid[i]:
                games[i].append(reward)
            if ended[i]:
                expected += [(i, sum(games[i]), len(games[i]))] if ours[i] else []
                games[i], ours[i] = [], True
        assert list(zip(*(column.tolist() for column in tally.finish(ended)), strict=True)) == expected
        resetting = ended.tolist()


def test_games_given_up_are_not_reported() -> None:
    tally = EpisodeTally(2)
    tally.add(np.array([5.0, 5.0]), np.array([True, True]))
    tally.restart(np.array([True, False]))
    tally.add(np.array([1.0, 1.0]), np.array([True, True]))
    finished, scores, frames = tally.finish(np.array([True, True]))
    assert (finished.tolist(), scores.tolist(), frames.tolist()) == ([0, 1], [1, 6], [1, 2])
