from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from rl_scaling.config import ConfigError
from rl_scaling.envs import GymnasiumVector, Transition, make_vector
from rl_scaling.envs.config import GymnasiumConfig


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """The observation counts the steps and each pays 2; action `first + 1` leaves; `limit` steps are the most."""

    def __init__(self, limit: int, first: int = 0, dtype: type = np.float64, n: int = 2) -> None:
        self.observation_space = Box(0, 100, (2,), dtype)
        self.action_space = Discrete(n, start=first)
        self.limit, self.first, self.dtype = limit, first, dtype

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.t = 0
        return np.zeros(2, self.dtype), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.full(2, self.t, self.dtype), 2.0, int(action) == self.first + 1, self.t >= self.limit, {}


def corridors(*limits: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP, **options: Any) -> SyncVectorEnv:
    return SyncVectorEnv([lambda limit=limit: Corridor(limit, **options) for limit in limits], autoreset_mode=mode)


def test_ends_limits_and_resets() -> None:
    """Environment 0 is cut after 2 steps, 1 leaves on step 3 (the same step as its limit), 2 goes on."""
    source = GymnasiumVector(corridors(2, 3, 9))
    first = source.reset(0)
    assert (source.num_envs, source.num_actions, source.observation_shape) == (3, 2, (2,))
    assert first.dtype == np.float32
    assert not first.any()
    steps = [source.step(np.array([0, t == 2, 0])) for t in range(5)]
    assert [s.observations[:, 0].tolist() for s in steps] == [[1, 1, 1], [2, 2, 2], [0, 3, 3], [1, 0, 4], [2, 1, 5]]
    assert [s.rewards.tolist() for s in steps] == [[2, 2, 2], [2, 2, 2], [0, 2, 2], [2, 0, 2], [2, 2, 2]]
    assert [np.flatnonzero(s.truncated).tolist() for s in steps] == [[], [0], [], [], [0]]
    assert [np.flatnonzero(s.terminated).tolist() for s in steps] == [[], [], [1], [], []]
    assert [np.flatnonzero(~s.valid).tolist() for s in steps] == [[], [], [0], [1], []]
    finished = [(s.finished.tolist(), s.episode_scores.tolist(), s.episode_frames.tolist()) for s in steps]
    assert finished == [([], [], []), ([0], [4], [2]), ([1], [6], [3]), ([], [], []), ([0], [4], [2])]


def columns(step: Transition) -> list[np.ndarray]:
    return list(vars(step).values())


def test_cartpole_scores_are_lengths_and_seeds_decide() -> None:
    def run(seed: int) -> list[Transition]:
        source = make_vector(GymnasiumConfig(env_id="CartPole-v1", num_envs=4))
        source.reset(seed)
        random = np.random.default_rng(0)
        steps = [source.step(random.integers(2, size=4)) for _ in range(200)]
        source.close()
        return steps

    one, same, other = run(0), run(0), run(1)
    assert all(
        np.array_equal(a, b)
        for s, t in zip(one, same, strict=True)
        for a, b in zip(columns(s), columns(t), strict=True)
    )
    assert not np.array_equal(one[0].observations, other[0].observations)
    assert sum(len(s.finished) for s in one) > 10
    assert all(np.array_equal(s.episode_scores, s.episode_frames) for s in one)
    frames = sum(int(s.episode_frames.sum()) for s in one)
    assert frames <= sum(int(s.valid.sum()) for s in one) < 4 * 200


def test_runs_with_neighbouring_seeds_share_no_environment() -> None:
    source = make_vector(GymnasiumConfig(env_id="CartPole-v1", num_envs=4))
    starts = np.concatenate([source.reset(seed) for seed in range(3)])
    assert len(np.unique(starts, axis=0)) == 12


def test_parallel_environments_of_gymnasium_give_the_same() -> None:
    def run(env: VectorEnv[Any, Any, Any]) -> list[Transition]:
        source = GymnasiumVector(env)
        source.reset(0)
        steps = [source.step(np.zeros(2, int)) for _ in range(10)]
        source.close()
        return steps

    functions = [lambda limit=limit: Corridor(limit) for limit in (2, 3)]
    ours, theirs = run(AsyncVectorEnv(functions)), run(SyncVectorEnv(functions))
    assert all(
        np.array_equal(a, b)
        for s, t in zip(ours, theirs, strict=True)
        for a, b in zip(columns(s), columns(t), strict=True)
    )


def test_environments_vectorised_by_their_authors_work() -> None:
    env = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    source = GymnasiumVector(env)
    source.reset(0)
    steps = [source.step(np.ones(3, int)) for _ in range(40)]
    assert sum(len(s.finished) for s in steps) >= 9
    assert all(np.array_equal(s.episode_scores, s.episode_frames) for s in steps)


def test_actions_that_start_elsewhere_are_shifted() -> None:
    source = GymnasiumVector(corridors(9, first=5))
    source.reset(0)
    assert not source.step(np.array([0])).terminated[0]
    assert source.step(np.array([1])).terminated[0]


def test_pixels_stay_bytes_and_returned_arrays_are_never_written_to_again() -> None:
    source = GymnasiumVector(corridors(9, dtype=np.uint8))
    first = source.reset(0)
    assert first.dtype == np.uint8
    step = source.step(np.array([0]))
    source.step(np.array([0]))
    assert (first[0, 0], step.observations[0, 0]) == (0, 1)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_ways_to_reset_are_refused(mode: AutoresetMode) -> None:
    env = corridors(2, mode=mode)
    corridors(2)  # the last one made writes its mode into the metadata that all share
    with pytest.raises(ConfigError, match=f"{mode.name}: make it with autoreset_mode"):
        GymnasiumVector(env)


def test_an_environment_that_says_nothing_of_how_it_resets_is_refused() -> None:
    class Silent(VectorEnv[Any, Any, Any]):
        metadata: dict[str, Any] = {}  # noqa: RUF012

    with pytest.raises(ConfigError, match="says nothing of how it resets"):
        GymnasiumVector(Silent())


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("NoSuchEnv-v0", "no environment 'NoSuchEnv-v0'"),
        ("CartPole", "no environment 'CartPole'"),
        ("Pendulum-v1", "actions are Box"),
        ("FrozenLake-v1", "observations are Discrete"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_in_one_line(env_id: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_vector(GymnasiumConfig(env_id=env_id, num_envs=2))
    assert "\n" not in str(caught.value)


def test_bad_use_is_refused() -> None:
    source = GymnasiumVector(corridors(9))
    with pytest.raises(RuntimeError, match="reset"):
        source.step(np.array([0]))
    with pytest.raises(ConfigError, match="seed is -1"):
        source.reset(-1)
    source.reset(0)
    for actions in (np.array([2]), np.array([-1]), np.array([0.0]), np.array([0, 0])):
        with pytest.raises(ValueError, match="action"):
            source.step(actions)
    source.close()
    source.close()
    with pytest.raises(RuntimeError, match="closed"):
        source.step(np.array([0]))
    with pytest.raises(RuntimeError, match="closed"):
        source.reset(0)
