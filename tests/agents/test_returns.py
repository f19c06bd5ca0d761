import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.agents.returns import generalized_advantages, n_step_returns
from tests.agents.reference import naive_advantages, naive_returns

Rollout = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    num_envs, steps = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    rewards = torch.randn(num_envs, steps, generator=generator)
    terminated = torch.rand(num_envs, steps, generator=generator) < 0.3
    truncated = (torch.rand(num_envs, steps, generator=generator) < 0.3) & ~terminated
    values = torch.randn(num_envs, steps, generator=generator)
    last_values = torch.randn(num_envs, generator=generator)
    return rewards, terminated, truncated, values, last_values


@given(rollout=rollouts(), discount=st.floats(0, 1))
def test_returns_equal_sums_made_one_by_one(rollout: Rollout, discount: float) -> None:
    torch.testing.assert_close(
        n_step_returns(*rollout, discount), naive_returns(*rollout, discount), rtol=1e-5, atol=1e-5
    )


@given(rollout=rollouts(), discount=st.floats(0, 1), trace_decay=st.floats(0, 1))
def test_advantages_equal_weighted_means_of_k_step_returns(
    rollout: Rollout, discount: float, trace_decay: float
) -> None:
    found = generalized_advantages(*rollout, discount, trace_decay)
    torch.testing.assert_close(found, naive_advantages(*rollout, discount, trace_decay), rtol=1e-5, atol=1e-5)


@given(rollout=rollouts(), discount=st.floats(0, 1))
def test_advantages_with_a_full_trace_are_returns_less_values(rollout: Rollout, discount: float) -> None:
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
