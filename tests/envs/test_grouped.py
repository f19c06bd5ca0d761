"""Groups come and go and nobody else's game notices; two halves in turns are two groups together."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import numpy as np
import pytest

from rl_scaling.config import ConfigError
from rl_scaling.envs import AlternatingVector, GroupedVector, Transition, join_transitions, make_vector
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, GymnasiumConfig, MinAtarConfig

PONG = AtariConfig(game="Pong", num_envs=4, max_start_steps=5)
BREAKOUT = AtariConfig(game="Breakout", num_envs=4, max_start_steps=5)
CARTPOLE = GymnasiumConfig(env_id="CartPole-v1", num_envs=4)
MINATAR = MinAtarConfig(game="breakout", num_envs=4, max_start_steps=5)


def grouped(config: EnvironmentConfig) -> GroupedVector:
    source = make_vector(config, num_threads=1, group_envs=2)
    assert isinstance(source, GroupedVector)
    return source


def play(source: GroupedVector, steps: int, random: np.random.Generator, most: int) -> list[Transition]:
    """The same actions in the environments that two sources share, however many more either has."""
    actions = random.integers(source.num_actions, size=(steps, most))
    return [source.step(actions[t, : source.num_envs]) for t in range(steps)]


@pytest.mark.parametrize("config", [PONG, CARTPOLE, MINATAR], ids=["Pong", "CartPole", "MinAtar"])
def test_environments_that_stay_play_on_as_if_nothing_had_happened(config: EnvironmentConfig) -> None:
    """Three times as long as a game of CartPole: ends, resets and scores are compared as well."""
    steady, changing = grouped(config), grouped(config)
    np.testing.assert_array_equal(steady.reset(3), changing.reset(3))
    first, second = np.random.default_rng(0), np.random.default_rng(0)
    for num_envs in (8, 6, 2, 4):
        last = changing.resize(num_envs, seed=num_envs)
        assert last.shape == (num_envs, *changing.observation_shape)
        assert changing.num_envs == num_envs
        for a, b in zip(play(steady, 25, first, 8), play(changing, 25, second, 8), strict=True):
            for name in ("observations", "rewards", "terminated", "truncated", "valid"):
                np.testing.assert_array_equal(getattr(a, name)[:2], getattr(b, name)[:2], err_msg=name)
            ours = b.finished < 2
            np.testing.assert_array_equal(a.finished[a.finished < 2], b.finished[ours])
            np.testing.assert_array_equal(a.episode_scores[a.finished < 2], b.episode_scores[ours])
    steady.close()
    changing.close()


def test_what_resize_returns_is_what_the_last_step_gave_and_new_games() -> None:
    source = grouped(CARTPOLE)
    source.reset(0)
    step = source.step(np.zeros(4, np.int64))
    more = source.resize(6, seed=1)
    np.testing.assert_array_equal(more[:4], step.observations)
    assert (np.abs(more[4:]) <= 0.05).all()  # CartPole begins within this
    assert len(np.unique(more, axis=0)) == 6
    np.testing.assert_array_equal(source.resize(2, seed=2), step.observations[:2])


def test_every_group_has_its_own_seed_and_finished_games_their_own_number() -> None:
    source = grouped(GymnasiumConfig(env_id="CartPole-v1", num_envs=8))
    observations = source.reset(0)
    assert len(np.unique(observations, axis=0)) == 8
    np.testing.assert_array_equal(observations, source.reset(0))
    finished: set[int] = set()
    for _ in range(60):
        finished |= set(source.step(np.ones(8, np.int64)).finished.tolist())
    assert finished == set(range(8))


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ConfigError, match="groups of 3 do not make 4 environments"):
        make_vector(CARTPOLE, group_envs=3)
    source = grouped(CARTPOLE)
    for action in (lambda: source.step(np.zeros(4, np.int64)), lambda: source.resize(2, 0)):
        with pytest.raises(RuntimeError, match="call reset"):
            action()
    source.reset(0)
    for num_envs in (0, 3):
        with pytest.raises(ConfigError, match=f"do not make {num_envs} environments"):
            source.resize(num_envs, 0)
    with pytest.raises(ConfigError, match="seed is -1"):
        source.resize(6, -1)
    with pytest.raises(ValueError, match="one per environment"):
        source.step(np.zeros(6, np.int64))
    source.close()
    source.close()
    with pytest.raises(RuntimeError, match="are closed"):
        source.step(np.zeros(4, np.int64))


def test_progress_goes_up_to_the_end() -> None:
    heard: list[tuple[int, int]] = []
    with_progress = make_vector(PONG, num_threads=1, group_envs=2, progress=lambda *done: heard.append(done))
    with_progress.reset(0)
    with_progress.close()
    shares = [done / total for done, total in heard]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


@pytest.mark.parametrize("config", [CARTPOLE, BREAKOUT], ids=lambda config: config.name)
def test_halves_in_turns_are_groups_together(config: EnvironmentConfig) -> None:
    make = partial(make_vector, num_threads=1)
    with closing(GroupedVector(config, 2, make)) as together, closing(AlternatingVector(config, make)) as halves:
        np.testing.assert_array_equal(together.reset(3), halves.reset(3))
        random = np.random.default_rng(0)
        for step in range(60):
            actions = random.integers(together.num_actions, size=4)
            expected = together.step(actions)
            parts = {}
            for half in ((0, 1), (1, 0))[step % 2]:
                halves.send(half, actions[halves.halves[half]])
            for half in ((0, 1), (1, 0))[step // 2 % 2]:
                parts[half] = halves.recv(half)
            found = join_transitions([parts[0], parts[1]])
            for name in vars(expected):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_what_halves_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 environments cannot be stepped in two halves"):
        make_vector(GymnasiumConfig(env_id="CartPole-v1", num_envs=3), alternate=True)
    source = make_vector(CARTPOLE, alternate=True)
    assert isinstance(source, AlternatingVector)
    with pytest.raises(RuntimeError, match="half 0 has not started"):
        source.send(0, np.zeros(2, np.int64))
    source.reset(0)
    with pytest.raises(RuntimeError, match="nothing was sent to half 1"):
        source.recv(1)
    with pytest.raises(ValueError, match="no action 7"):
        source.send(0, np.array([0, 7]))
    source.send(0, np.zeros(2, np.int64))
    with pytest.raises(RuntimeError, match="was sent its actions already"):
        source.send(0, np.zeros(2, np.int64))
    with pytest.raises(RuntimeError, match="call recv"):
        source.step(np.zeros(4, np.int64))
    source.recv(0)
    with pytest.raises(ConfigError, match="cannot change in number"):
        source.resize(8, 0)
    source.close()
    source.close()
    with pytest.raises(RuntimeError, match="is closed"):
        source.send(1, np.zeros(2, np.int64))


def test_a_reset_between_send_and_recv_is_refused() -> None:
    with closing(make_vector(GymnasiumConfig(env_id="CartPole-v1", num_envs=2), alternate=True)) as source:
        assert isinstance(source, AlternatingVector)
        source.reset(0)
        source.send(0, np.zeros(1, np.int64))
        with pytest.raises(RuntimeError, match=r"call recv\(half\) before"):
            source.reset(1)
