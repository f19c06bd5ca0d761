"""Gradients with the weights kept: against naive ones, group by group; and nothing of the agent moves."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from rl_scaling.agents import A2C, PPO, Agent
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.frozen import FrozenGradients
from rl_scaling.agents.rollout import Rollout
from rl_scaling.config import ConfigError
from tests.agents.reference import TapeSource, naive_gradient, sq_norm

A2C_CONFIG = A2CConfig(network="mlp", entropy_coefficient=0.1)
PPO_CONFIG = PPOConfig(network="mlp", rollout_steps=6, minibatches=2, entropy_coefficient=0.1)


def frozen_agent(
    config: A2CConfig | PPOConfig = A2C_CONFIG, network: str = "mlp", groups: int = 3
) -> tuple[Agent[Any], FrozenGradients]:
    source = TapeSource(6, (6,) if network == "mlp" else (4, 84, 84))
    kind = A2C if isinstance(config, A2CConfig) else PPO
    config = dataclasses.replace(config, network=network)
    agent = kind(config, source.observation_shape, source.num_actions, total_updates=10, seed=3)  # pyright: ignore[reportArgumentType]
    # As after some training.
    nn.init.orthogonal_(agent.network.policy_head.weight, 1.0, torch.Generator().manual_seed(0))
    return agent, FrozenGradients(agent, source, source.reset(5), num_groups=groups, seed=1)


def flat(gradient: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.flatten() for g in gradient])


@pytest.mark.parametrize("network", ["mlp", "small"])
def test_gradients_of_groups_equal_naive_ones(network: str) -> None:
    agent, frozen = frozen_agent(network=network)
    assert isinstance(agent, A2C)
    rollout = frozen.roll_out()
    means, sizes, losses = frozen.gradients_of_groups(rollout)
    for number, rows in enumerate(frozen.groups):
        inside = list(range(rows.start, rows.stop))
        expected = flat(naive_gradient(agent, rollout, inside))
        torch.testing.assert_close(means[:, number].sum(dim=0), expected, rtol=1e-4, atol=1e-6)
        assert sizes[number] == rollout.valid.flatten()[inside].sum()
    # The terms as they are weighted: without the other two, each is the whole.
    agent.config = dataclasses.replace(agent.config, value_coefficient=0.0, entropy_coefficient=0.0)
    rows = list(range(frozen.groups[0].start, frozen.groups[0].stop))
    torch.testing.assert_close(means[0, 0], flat(naive_gradient(agent, rollout, rows)), rtol=1e-4, atol=1e-6)
    assert losses.shape == (3,)


def test_squared_norms_of_single_frames_equal_naive_ones() -> None:
    agent, frozen = frozen_agent()
    assert isinstance(agent, A2C)
    rollout = frozen.roll_out()
    (valid,) = rollout.valid.flatten().numpy().nonzero()
    found = frozen.frame_sq_norms(rollout, len(valid) + 7)
    expected = [sq_norm(naive_gradient(agent, rollout, [int(row)])) for row in valid]
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-4)


def mean_loss(agent: A2C, rollout: Rollout, rows: list[int], weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean A2C loss over valid rows, written out for an automatic Hessian."""
    returns, c = agent.returns(rollout).flatten(), agent.config
    rows = [row for row in rows if rollout.valid.flatten()[row]]
    logits, values = functional_call(agent.network, weights, (rollout.observations[rows],))
    log_probs = logits.log_softmax(-1)
    chosen = log_probs.gather(-1, rollout.actions.flatten()[rows][:, None]).squeeze(-1)
    advantage = returns[rows] - rollout.values.flatten()[rows]
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    value_loss = (returns[rows] - values) ** 2
    return (-advantage * chosen + c.value_coefficient * value_loss - c.entropy_coefficient * entropy).mean()


def test_curvatures_equal_finite_differences_of_the_gradient() -> None:
    agent, frozen = frozen_agent()
    assert isinstance(agent, A2C)
    rollout = frozen.roll_out()
    agent.network.double()
    floats = {
        name: value.double()
        for name, value in vars(rollout).items()
        if torch.is_tensor(value) and value.is_floating_point()
    }
    rollout = dataclasses.replace(rollout, **floats)
    weights = {name: p.detach().clone() for name, p in agent.network.named_parameters()}
    rows = [row for group in (0, 2) for row in range(frozen.groups[group].start, frozen.groups[group].stop)]
    count = sum(p.numel() for p in weights.values())
    left, right = torch.randn(2, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def moved(by: float) -> torch.Tensor:
        parts = torch.split(right * by, [p.numel() for p in weights.values()])
        there = {
            name: (p + part.view_as(p)).requires_grad_() for (name, p), part in zip(weights.items(), parts, strict=True)
        }
        return flat(list(torch.autograd.grad(mean_loss(agent, rollout, rows, there), list(there.values()))))

    expected = (moved(1e-5) - moved(-1e-5)) @ left / 2e-5
    (found,) = frozen.curvatures(rollout, [0, 2], [(left, right)])
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_advantages_of_ppo_are_normalised_over_the_whole_rollout() -> None:
    agent, frozen = frozen_agent(PPO_CONFIG)
    rollout = frozen.roll_out()
    means, sizes, _ = frozen.gradients_of_groups(rollout)
    policy, value, entropy = agent.loss_terms(rollout)(*agent.network(rollout.observations))
    gradient = torch.autograd.grad(policy + value + entropy, list(agent.network.parameters()))
    shares = torch.as_tensor(sizes / sizes.sum(), dtype=torch.float32)
    torch.testing.assert_close(means.sum(dim=0).T @ shares, flat(list(gradient)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", [A2C_CONFIG, PPO_CONFIG], ids=["a2c", "ppo"])
def test_nothing_of_the_agent_moves(config: A2CConfig | PPOConfig) -> None:
    agent, frozen = frozen_agent(config)
    before = copy.deepcopy(agent.state_dict())
    for _ in range(2):
        rollout = frozen.roll_out()
        means = frozen.gradients_of_groups(rollout).means.sum(dim=0)
        frozen.frame_sq_norms(rollout, 2)
        frozen.curvatures(rollout, [0], [(means[1], means[2])])
    after = agent.state_dict()
    for name, weights in before["network"].items():
        assert torch.equal(weights, after["network"][name])
    assert torch.equal(before["generator"], after["generator"])
    assert before["optimizer"] == after["optimizer"]
    assert all(p.grad is None for p in agent.network.parameters())


def test_an_algorithm_without_its_terms_is_refused() -> None:
    agent, frozen = frozen_agent()
    rollout = frozen.roll_out()
    with pytest.raises(ConfigError, match="a2c cannot be measured at weights that are kept"):
        Agent.loss_terms(agent, rollout)
