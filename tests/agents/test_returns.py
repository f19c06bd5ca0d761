import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.agents.returns import n_step_returns
from tests.agents.reference import naive_returns


@given(seed=st.integers(0, 10**6), num_envs=st.integers(1, 4), steps=st.integers(1, 7), discount=st.floats(0, 1))
def test_returns_equal_sums_made_one_by_one(seed: int, num_envs: int, steps: int, discount: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(num_envs, steps, generator=generator)
    terminated = torch.rand(num_envs, steps, generator=generator) < 0.3
    truncated = (torch.rand(num_envs, steps, generator=generator) < 0.3) & ~terminated
    values = torch.randn(num_envs, steps, generator=generator)
    last_values = torch.randn(num_envs, generator=generator)
    arguments = (rewards, terminated, truncated, values, last_values, discount)
    torch.testing.assert_close(n_step_returns(*arguments), naive_returns(*arguments), rtol=1e-5, atol=1e-5)


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
