"""The replayed acting pass has the gradient of an ordinary one, and the norms of its parts."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from rl_scaling.agents import A2C
from rl_scaling.agents.config import A2CConfig
from rl_scaling.agents.replay import Tape
from rl_scaling.agents.rollout import Actor, Rollout
from rl_scaling.config import ConfigError
from rl_scaling.noise.torch.group_gradients import GroupSqNorms
from tests.agents.reference import TapeSource, naive_gradient, sq_norm

Network = Literal["small", "nature", "minatar", "mlp"]
SHAPES: dict[Network, tuple[int, ...]] = {
    "small": (4, 84, 84),
    "nature": (4, 84, 84),
    "minatar": (7, 10, 10),
    "mlp": (6,),
}


def rolled_out(network: Network, num_envs: int = 6) -> tuple[A2C, Actor, Rollout]:
    source = TapeSource(num_envs, SHAPES[network])
    agent = A2C(A2CConfig(network=network), source.observation_shape, source.num_actions, total_updates=10, seed=3)
    # Weights as after some training: with the tiny policy head of the start only the value part would be seen.
    nn.init.orthogonal_(agent.network.policy_head.weight, 1.0)
    agent.begin(source, source.reset(5))
    assert agent._actor is not None
    return agent, agent._actor, agent._actor.roll_out(5, agent.generator)


@pytest.mark.parametrize("network", list(SHAPES))
def test_gradient_equals_that_of_a_second_forward_pass(network: Network) -> None:
    agent, actor, rollout = rolled_out(network)
    assert not rollout.valid.all(), "the tape must contain steps that do not count"
    loss = agent._total(agent._losses(*actor.tape.replay(), rollout))
    loss.backward()
    for parameter, expected in zip(
        agent.network.parameters(), naive_gradient(agent, rollout, list(range(30))), strict=True
    ):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", list(SHAPES))
def test_group_norms_equal_those_of_gradients_taken_one_by_one(network: Network) -> None:
    agent, actor, rollout = rolled_out(network)
    norms = agent._group_sq_norms(rollout, num_groups=4, frame_gradients=5)
    loss = agent._total(agent._losses(*actor.tape.replay(norms), rollout))
    loss.backward()
    gradient = [p.grad for p in agent.network.parameters() if p.grad is not None]
    groups = agent._gradient_groups(rollout.valid, norms, gradient)
    for k, group in enumerate(norms.groups):
        rows = list(range(group.start, group.stop))
        assert groups.sizes[k] == rollout.valid.flatten()[rows].sum()
        assert groups.sq_norms[k] == pytest.approx(sq_norm(naive_gradient(agent, rollout, rows)), rel=1e-3)
    for row, found in zip(norms.rows, groups.frame_sq_norms, strict=True):
        assert found == pytest.approx(sq_norm(naive_gradient(agent, rollout, [int(row)])), rel=1e-3)
    assert groups.batch_sq_norm == pytest.approx(sq_norm(naive_gradient(agent, rollout, list(range(30)))), rel=1e-3)


def test_measuring_changes_no_weight() -> None:
    def weights(**measure: Any) -> list[Tensor]:
        source = TapeSource(6)
        agent = A2C(A2CConfig(network="small"), source.observation_shape, 4, total_updates=10)
        agent.begin(source, source.reset(0))
        for _ in range(3):
            agent.step(**measure)
        return [p.detach().clone() for p in agent.network.parameters()]

    for plain, measured in zip(weights(), weights(num_groups=3, frame_gradients=4), strict=True):
        torch.testing.assert_close(plain, measured, rtol=1e-4, atol=1e-6)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 5))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        out = self.body(observations)
        return out[:, :4], out[:, 4]


class Scaled(Normed):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        out = self.layer(self.layer(observations))
        return out[:, :4], out[:, 4]


@pytest.mark.parametrize("measured", [False, True])
def test_normalised_networks_are_replayed(measured: bool) -> None:
    network, observations = Normed(), torch.randn(12, 6, generator=torch.Generator().manual_seed(0))

    def gradient(logits: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((logits**2).sum() + values.exp().sum(), list(network.parameters()))

    tape = Tape(network)
    with tape.recording(steps=2):
        for step in range(2):
            tape.act(observations[step::2])
    norms = GroupSqNorms([slice(0, 4), slice(4, 12)], [3]) if measured else None
    torch.testing.assert_close(gradient(*tape.replay(norms)), gradient(*network(observations)))
    if norms is not None:
        expected = [sq_norm(list(gradient(*network(observations[rows])))) for rows in norms.groups]
        torch.testing.assert_close(norms.group_sq_norms.float(), torch.tensor(expected))


def test_networks_that_cannot_be_replayed_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"scale is in a Scaled, which is none of Linear.* not supported"):
        Tape(Scaled())
    tape, observations = Tape(Twice()), torch.zeros(2, 6)
    with tape.recording(steps=1):
        tape.act(observations)
    with pytest.raises(ConfigError, match="used 2 times in 1 passes"):
        tape.replay()


def test_layers_are_left_as_they_were() -> None:
    agent, actor, rollout = rolled_out("small")
    actor.tape.replay()
    again = agent.network(rollout.observations)[1]
    assert again.shape == (30,)
    assert all("forward" not in vars(module) for module in agent.network.modules())
