"""PPO-EWMA: its averages and its loss against naive ones, where it is PPO, its state, and its noise scale."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rl_scaling.agents.agent import Agent
from rl_scaling.agents.config import PPOConfig, PPOEWMAConfig
from rl_scaling.agents.ppo_ewma import PPOEWMA, MomentsEWMA
from rl_scaling.domains.rl.registry import make_agent
from tests.agents.reference import TapeSource, naive_ewma_loss, naive_moments, naive_weights_ewma, sq_norm

NUM_ENVS, STEPS, CLIP = 6, 10, 0.1
CONFIG = PPOEWMAConfig(
    network="mlp", rollout_steps=STEPS, minibatches=3, epochs=2, learning_rate=1e-2, reference_batch=40
)


def acting(config: PPOConfig = CONFIG, *, seed: int = 5) -> Any:
    source = TapeSource(NUM_ENVS, (6,))
    agent: Agent[Any] = make_agent(config, (6,), source.num_actions, total_updates=100, seed=3)
    nn.init.orthogonal_(agent.network.policy_head.weight, 1.0, torch.Generator().manual_seed(0))
    if isinstance(agent, PPOEWMA):  # the average begins with the weights above
        agent._proximal.network.load_state_dict(agent.network.state_dict())
    agent.begin(source, source.reset(seed))
    return agent


def weights(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def test_the_proximal_policy_is_the_average_of_all_weights_so_far() -> None:
    """The decay is that of a batch of 20 frames: half of the reference, so that the centre of mass is twice as far."""
    agent = acting()
    history, learn = [weights(agent.network)], agent._learn

    def learn_and_keep(*arguments: Any, **options: Any) -> Any:
        done = learn(*arguments, **options)
        history.append(weights(agent.network))
        return done

    agent._learn = learn_and_keep
    for _ in range(2):
        agent.step()
    assert len(history) == 1 + 2 * 6
    centre = 2 * CONFIG.proximal_decay / (1 - CONFIG.proximal_decay)
    for found, expected in zip(
        weights(agent._proximal.network), naive_weights_ewma(history, centre / (1 + centre)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_advantages_are_normalised_by_moments_of_all_rollouts_so_far() -> None:
    moments, rollouts = MomentsEWMA(), [torch.randn(m, generator=torch.Generator().manual_seed(m)) for m in (5, 9, 2)]
    for rollout in rollouts:
        moments.update(rollout, 0.7)
    mean, deviation = naive_moments(rollouts, 0.7)
    numbers = torch.tensor([-1.0, 0.0, 3.0])
    torch.testing.assert_close(moments.normalise(numbers), (numbers - mean) / (deviation + 1e-8))
    again = MomentsEWMA()
    torch.testing.assert_close(again.normalise(numbers), numbers, rtol=0, atol=0)
    again.load_state_dict(moments.state_dict())
    torch.testing.assert_close(again.normalise(numbers), moments.normalise(numbers), rtol=0, atol=0)


def test_gradient_and_norms_of_a_minibatch_equal_naive_ones() -> None:
    """In a second rollout, when behaviour, proximal and new policy are three."""
    agent = acting(dataclasses.replace(CONFIG, max_grad_norm=1e9))
    agent.step()
    rollout = agent._roll_out()
    assert not rollout.valid.all(), "there must be frames that do not count"
    frames = agent._frames(rollout)
    dealt = list(agent._minibatches(NUM_ENVS, STEPS))
    for rows in dealt[:2]:
        agent._learn(frames[rows], 1e-2, CLIP)
    minibatch = frames[dealt[2]]
    norms = agent._group_sq_norms(minibatch.valid, dealt[2], num_groups=2, frame_gradients=3)
    everything = dealt[2].tolist()
    parts = [everything, *(everything[group] for group in norms.groups), *([everything[row]] for row in norms.rows)]
    naive = []
    for part in parts:
        loss = naive_ewma_loss(agent, agent._proximal.network, frames, part, CLIP)
        naive.append(torch.autograd.grad(loss, list(agent.network.parameters()), materialize_grads=True))
    learned = agent._learn(minibatch, 1e-9, CLIP, norms)
    assert 0 < learned.statistics[3] < 1, "some frames must be clipped"
    for parameter, expected in zip(agent.network.parameters(), naive[0], strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5)
    found = [learned.groups.batch_sq_norm, *learned.groups.sq_norms, *learned.groups.frame_sq_norms]
    assert found == pytest.approx([sq_norm(gradient) for gradient in naive], rel=5e-3, abs=1e-8)


PLAIN: dict[str, Any] = {"network": "mlp", "rollout_steps": STEPS, "learning_rate": 1e-2, "normalize_advantages": False}


def test_the_first_update_is_that_of_ppo() -> None:
    """Behaviour and proximal policy are one before anything is learned."""
    agents = [acting(kind(**PLAIN, minibatches=1, epochs=1)) for kind in (PPOConfig, PPOEWMAConfig)]
    for agent in agents:
        agent.step()
    for plain, other in zip(*(weights(agent.network) for agent in agents), strict=True):
        torch.testing.assert_close(plain, other, rtol=0, atol=0)


def test_the_loss_of_kept_weights_is_that_of_ppo() -> None:
    """Whatever the average was while the weights were on their way: a checkpoint's weights may come without it."""
    plain, other = (acting(kind(**PLAIN, minibatches=1, epochs=1)) for kind in (PPOConfig, PPOEWMAConfig))
    for _ in range(3):
        other.step()
    plain.network.load_state_dict(other.network.state_dict())
    average = [weight.clone() for weight in other._proximal.network.parameters()]
    rollout = other._roll_out()
    terms = [agent.loss_terms(rollout)(*agent.network(rollout.observations)) for agent in (plain, other)]
    for of_plain, of_other in zip(*terms, strict=True):
        assert torch.equal(of_plain, of_other)
    gradients = [
        torch.autograd.grad(torch.stack(own).sum(), list(agent.network.parameters()))
        for own, agent in zip(terms, (plain, other), strict=True)
    ]
    for of_plain, of_other in zip(*gradients, strict=True):
        torch.testing.assert_close(of_plain, of_other, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(*pair) for pair in zip(average, other._proximal.network.parameters(), strict=True))


def test_without_memory_and_with_one_update_per_rollout_it_is_ppo_for_good() -> None:
    """A proximal policy that is always the newest is the behaviour policy of the next rollout."""
    options = {**PLAIN, "minibatches": 1, "epochs": 1}
    agents = [acting(PPOConfig(**options)), acting(PPOEWMAConfig(**options, proximal_decay=0.0))]
    for _ in range(4):
        losses = [agent.step().policy_loss for agent in agents]
        assert losses[0] == losses[1]
    for plain, other in zip(*(weights(agent.network) for agent in agents), strict=True):
        torch.testing.assert_close(plain, other, rtol=0, atol=0)


def test_it_resumes_from_its_state_bit_for_bit() -> None:
    agent = acting()
    for _ in range(2):
        agent.step()
    state = copy.deepcopy(agent.state_dict())
    again = acting()
    again.load_state_dict(state)
    ends = []
    for each in (agent, again):
        source = TapeSource(NUM_ENVS, (6,))
        each.begin(source, source.reset(9))
        each.step()
        each.step()
        ends.append([*weights(each.network), *weights(each._proximal.network), each._moments.state_dict()["sums"]])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_measuring_changes_no_weight() -> None:
    measured = acting()
    update = measured.step(num_groups=3, frame_gradients=2, parts=True)
    assert update.groups is not None
    assert update.reuse is not None
    plain = acting()
    plain.step()
    for one, other in zip(weights(plain.network), weights(measured.network), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
