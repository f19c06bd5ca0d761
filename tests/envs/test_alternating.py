"""Two halves stepped by themselves are two groups stepped together."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import numpy as np
import pytest

from rl_scaling.config import ConfigError
from rl_scaling.envs import AlternatingVector, GroupedVector, join_transitions, make_vector
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, GymnasiumConfig

CONFIGS = (
    GymnasiumConfig(env_id="CartPole-v1", num_envs=4),
    AtariConfig(game="Breakout", num_envs=4, max_start_steps=5),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
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


def test_what_cannot_be_done_is_refused() -> None:
    config = GymnasiumConfig(env_id="CartPole-v1", num_envs=4)
    with pytest.raises(ConfigError, match="3 environments cannot be stepped in two halves"):
        make_vector(GymnasiumConfig(env_id="CartPole-v1", num_envs=3), alternate=True)
    source = make_vector(config, alternate=True)
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
