"""Returns against sums made one by one; acting for one half while the other is emulated against acting for both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.agents import A2C, PPO, Agent
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.networks import make_network
from rl_scaling.agents.rollout import Actor, PipelinedActor, Rollout, generalized_advantages, n_step_returns
from rl_scaling.envs import AlternatingVector, GroupedVector, Transition, VectorSource, make_vector
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, GymnasiumConfig, MinAtarConfig
from tests.agents.reference import naive_advantages, naive_returns

CARTPOLE = GymnasiumConfig(env_id="CartPole-v1", num_envs=4)
BREAKOUT = AtariConfig(game="Breakout", num_envs=4, max_start_steps=20)
PENDULUM = GymnasiumConfig(env_id="Pendulum-v1", num_envs=4)
ASTERIX = MinAtarConfig(game="asterix", num_envs=4)
ENVIRONMENTS = pytest.mark.parametrize(
    "config", [CARTPOLE, PENDULUM, BREAKOUT, ASTERIX], ids=lambda config: config.name
)
Returned = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
TENSORS = ("observations", "actions", "logits", "values", "last_values", "rewards", "terminated", "truncated", "valid")


def network_for(config: EnvironmentConfig) -> Any:
    return {CARTPOLE: "mlp", PENDULUM: "mlp", BREAKOUT: "small", ASTERIX: "minatar"}[config]


def assert_same(found: Rollout, expected: Rollout) -> None:
    for name in TENSORS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5, msg=name)
    assert found.frames == expected.frames
    np.testing.assert_array_equal(found.episode_scores, expected.episode_scores)
    np.testing.assert_array_equal(found.episode_frames, expected.episode_frames)


def agent_in(source: VectorSource, network: Any, make: Callable[..., Agent[Any]]) -> Agent[Any]:
    torch.manual_seed(1)
    shape, actions = source.observation_shape, source.num_actions or source.action_space
    agent = make(shape, actions, total_updates=100, seed=2, network=make_network(network, shape, actions))
    agent.begin(source, source.reset(5))
    return agent


@ENVIRONMENTS
def test_rollouts_and_updates_equal_those_of_sequential_acting(config: EnvironmentConfig) -> None:
    """The same random numbers choose the same actions; what is measured is the same as well."""
    make = partial(make_vector, num_threads=1)
    with closing(GroupedVector(config, 2, make)) as plain, closing(AlternatingVector(config, make)) as halves:
        agents = [
            agent_in(source, network_for(config), partial(A2C, A2CConfig(learning_rate=1e-4)))
            for source in (plain, halves)
        ]
        assert [type(agent._acting) for agent in agents] == [Actor, PipelinedActor]
        for _ in range(5):
            rollouts = [agent._roll_out() for agent in agents]
            assert_same(rollouts[1], rollouts[0])
            updates = [agent.step(num_groups=2) for agent in agents]
            for update in updates:
                assert update.groups is not None
            sq_norms = [update.groups.sq_norms for update in updates if update.groups]
            np.testing.assert_allclose(sq_norms[1], sq_norms[0], rtol=1e-3)
        for ours, theirs in zip(*(agent.network.parameters() for agent in agents), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_ppo_acts_in_halves_too() -> None:
    make = partial(make_vector, num_threads=1)
    settings = PPOConfig(rollout_steps=8, minibatches=2, network="mlp")
    with closing(GroupedVector(CARTPOLE, 2, make)) as plain, closing(AlternatingVector(CARTPOLE, make)) as halves:
        agents = [agent_in(source, "mlp", partial(PPO, settings)) for source in (plain, halves)]
        for _ in range(3):
            updates = [agent.step() for agent in agents]
            torch.testing.assert_close(updates[1].policy_loss, updates[0].policy_loss, rtol=1e-3, atol=1e-5)
        for ours, theirs in zip(*(agent.network.parameters() for agent in agents), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@ENVIRONMENTS
def test_a_rollout_is_those_of_two_sources_of_half_the_size(config: EnvironmentConfig) -> None:
    """Two actors in the halves' own sources, one after the other; a policy that leaves nothing to chance."""
    halves = AlternatingVector(config, partial(make_vector, num_threads=1))
    torch.manual_seed(0)
    network = make_network(network_for(config), halves.observation_shape, halves.num_actions or halves.action_space)
    with torch.no_grad():
        network.policy_head.weight.mul_(1e6)
        if network.log_std is not None:
            network.log_std.weight.fill_(-100)
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    with closing(halves):
        actor = PipelinedActor(network, halves, halves.reset(7), cpu)
        found = [actor.roll_out(steps, generator) for steps in (5, 5, 3)]
        found = [{name: getattr(r, name).clone() for name in TENSORS[1:]} for r in found]
    with closing(AlternatingVector(config, partial(make_vector, num_threads=1))) as again:
        starts = again.reset(7)
        for half, part in enumerate(again.halves):
            alone = Actor(network, again._members[half], starts[part], cpu)
            for steps, rollout in zip((5, 5, 3), found, strict=True):
                expected = alone.roll_out(steps, generator)
                for name, values in rollout.items():
                    own = getattr(expected, name)
                    torch.testing.assert_close(values[part], own, rtol=1e-3, atol=1e-4, msg=name)


def test_a_change_of_precision_is_followed() -> None:
    with closing(AlternatingVector(CARTPOLE, make_vector)) as source:
        agent = agent_in(source, "mlp", partial(A2C, A2CConfig()))
        for dtype in (None, torch.bfloat16, None):
            agent.network.compute_dtype = dtype
            rollout = agent._roll_out()
            with torch.no_grad():
                logits, values = agent.network(rollout.observations)
            torch.testing.assert_close(rollout.logits.flatten(0, 1), logits, rtol=1e-2, atol=1e-3)
            torch.testing.assert_close(rollout.values.flatten(), values, rtol=1e-2, atol=1e-3)


class Noting(AlternatingVector):
    """Notes what is under way when something is sent or received."""

    def __init__(self, config: EnvironmentConfig, make: Callable[[EnvironmentConfig], VectorSource]) -> None:
        super().__init__(config, make)
        self.calls: list[tuple[str, int, bool]] = []

    def send(self, half: int, actions: np.ndarray) -> None:
        self.calls.append(("send", half, self._sent[1 - half] is not None))
        super().send(half, actions)

    def recv(self, half: int) -> Transition:
        self.calls.append(("recv", half, self._sent[1 - half] is not None))
        return super().recv(half)


def test_one_half_is_under_way_while_the_other_is_acted_on() -> None:
    with closing(Noting(CARTPOLE, make_vector)) as source:
        agent = agent_in(source, "mlp", partial(A2C, A2CConfig()))
        source.calls.clear()
        agent.step()
        # Only at the edges of a rollout does one half wait for the other.
        assert [call for call in source.calls if not call[2]] == [("send", 0, False), ("recv", 1, False)]
        assert len(source.calls) == 2 * 2 * 5


@st.composite
def rollouts(draw: st.DrawFn) -> Returned:
    num_envs, steps = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    rewards = torch.randn(num_envs, steps, generator=generator)
    terminated = torch.rand(num_envs, steps, generator=generator) < 0.3
    truncated = (torch.rand(num_envs, steps, generator=generator) < 0.3) & ~terminated
    values = torch.randn(num_envs, steps, generator=generator)
    last_values = torch.randn(num_envs, generator=generator)
    return rewards, terminated, truncated, values, last_values


@given(rollout=rollouts(), discount=st.floats(0, 1))
def test_returns_equal_sums_made_one_by_one(rollout: Returned, discount: float) -> None:
    torch.testing.assert_close(
        n_step_returns(*rollout, discount), naive_returns(*rollout, discount), rtol=1e-5, atol=1e-5
    )


@given(rollout=rollouts(), discount=st.floats(0, 1), trace_decay=st.floats(0, 1))
def test_advantages_equal_weighted_means_of_k_step_returns(
    rollout: Returned, discount: float, trace_decay: float
) -> None:
    found = generalized_advantages(*rollout, discount, trace_decay)
    torch.testing.assert_close(found, naive_advantages(*rollout, discount, trace_decay), rtol=1e-5, atol=1e-5)


@given(rollout=rollouts(), discount=st.floats(0, 1))
def test_advantages_with_a_full_trace_are_returns_less_values(rollout: Returned, discount: float) -> None:
    values = rollout[3]
    torch.testing.assert_close(
        generalized_advantages(*rollout, discount, 1.0) + values,
        n_step_returns(*rollout, discount),
        rtol=1e-5,
        atol=1e-5,
    )


def test_reward_of_one_for_ever_is_worth_the_geometric_series() -> None:
    # With the true value 1 / (1 - discount) at the end, every return is that value.
    no = torch.zeros(2, 6, dtype=torch.bool)
    worth = torch.full((2,), 10.0)
    returns = n_step_returns(torch.ones(2, 6), no, no, torch.zeros(2, 6), worth, 0.9)
    torch.testing.assert_close(returns, torch.full((2, 6), 10.0))


def test_time_limit_bootstraps_and_end_of_game_does_not() -> None:
    no, yes = torch.tensor([[False, False]]), torch.tensor([[True, False]])
    rewards, values, last = torch.tensor([[1.0, 5.0]]), torch.tensor([[0.0, 7.0]]), torch.tensor([100.0])
    assert n_step_returns(rewards, yes, no, values, last, 0.5)[0, 0] == 1.0
    assert n_step_returns(rewards, no, yes, values, last, 0.5)[0, 0] == 1.0 + 0.5 * 7.0
    assert generalized_advantages(rewards, yes, no, values, last, 0.5, 0.9)[0, 0] == 1.0
    assert generalized_advantages(rewards, no, yes, values, last, 0.5, 0.9)[0, 0] == 1.0 + 0.5 * 7.0
