"""PPO: minibatches, what counts in them, and the noise scale of each."""

import copy
import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiBinary, Space
from torch import Tensor, nn

from rl_scaling.agents import PPO
from rl_scaling.agents.config import PPOConfig
from rl_scaling.agents.ppo import Frames
from rl_scaling.agents.rollout import Rollout
from rl_scaling.records import PARTS
from tests.agents.reference import TapeSource, distribution, naive_advantages, sq_norm

CONFIG = PPOConfig(network="mlp", rollout_steps=10, minibatches=3, epochs=2, learning_rate=1e-2, value_clip_range=0.1)
NUM_ENVS, CLIP = 6, 0.1


def acting(space: Space[Any] | None = None, **options: Any) -> PPO:
    config = dataclasses.replace(CONFIG, **options)
    source = TapeSource(NUM_ENVS, (6,) if config.network == "mlp" else (4, 84, 84), space=space)
    agent = PPO(config, source.observation_shape, source.action_space, total_updates=100, seed=3)
    nn.init.orthogonal_(agent.network.policy_head.weight, 1.0, torch.Generator().manual_seed(0))
    agent.begin(source, source.reset(5))
    return agent


def naive_loss(agent: PPO, rollout: Rollout, minibatch: list[int], rows: list[int], **zero: float) -> Tensor:
    """Mean loss over some rows of a minibatch, frame by frame, with advantages normalised by the whole minibatch's."""
    c = dataclasses.replace(agent.config, **zero)
    all_advantages = naive_advantages(*rollout.rewards_and_values, c.discount, c.gae_lambda).flatten()
    returns, valid = all_advantages + rollout.values.flatten(), rollout.valid.flatten()
    counted = np.array([float(all_advantages[row]) for row in minibatch if valid[row]])
    kind, actions = agent.network.actions, rollout.actions.flatten(0, 1).float()
    old = distribution(kind, rollout.logits.flatten(0, 1)).log_prob(actions)
    total, count = torch.zeros(()), 0
    for row in rows:
        if not valid[row]:
            continue
        count += 1
        logits, values = agent.network(rollout.observations[row : row + 1])
        policy = distribution(kind, logits[0])
        advantage = (float(all_advantages[row]) - counted.mean()) / (counted.std(ddof=1) + 1e-8)
        ratio = (policy.log_prob(actions[row]) - old[row]).exp()
        policy_loss = -torch.min(advantage * ratio, advantage * ratio.clamp(1 - CLIP, 1 + CLIP))
        was = rollout.values.flatten()[row]
        value = was + (values[0] - was).clamp(-c.value_clip_range, c.value_clip_range)
        value_loss = (returns[row] - value) ** 2
        total = total + policy_loss + c.value_coefficient * value_loss - c.entropy_coefficient * policy.entropy()
    return total / count


def naive_gradient(agent: PPO, *arguments: Any, **zero: float) -> list[Tensor]:
    loss = naive_loss(agent, *arguments, **zero)
    return list(torch.autograd.grad(loss, list(agent.network.parameters()), materialize_grads=True, allow_unused=True))


@pytest.mark.parametrize(
    ("network", "minibatch_of", "space"),
    [
        ("mlp", "frames", None),
        ("mlp", "environments", None),
        ("small", "frames", None),
        ("mlp", "frames", Box(-1, 1, (2,))),
        ("mlp", "environments", MultiBinary(3)),
    ],
    ids=["frames", "environments", "pixels", "box", "switches"],
)
def test_gradient_and_norms_of_a_minibatch_equal_naive_ones(
    network: str, minibatch_of: str, space: Space[Any] | None
) -> None:
    """In a later epoch, when the ratios have left 1: the groups share the minibatch's normalised advantages."""
    agent = acting(space, network=network, minibatch_of=minibatch_of, max_grad_norm=1e9)
    rollout = agent._roll_out()
    assert not rollout.valid.all(), "there must be frames that do not count"
    frames = Frames.of(rollout, agent.config.discount, agent.config.gae_lambda)
    dealt = list(agent._minibatches(NUM_ENVS, 10))
    for rows in dealt[:2]:
        agent._learn(frames[rows], 1e-2 if network == "mlp" else 1e-3, CLIP)
    rows = dealt[2]
    minibatch = frames[rows]
    norms = agent._group_sq_norms(minibatch.valid, rows, num_groups=2, frame_gradients=3)
    assert norms is not None
    everything = rows.tolist()
    parts = [everything, *(everything[group] for group in norms.groups), *([everything[row]] for row in norms.rows)]
    environments = [{row // 10 for row in part} for part in parts[1:3]]
    assert environments[0].isdisjoint(environments[1])
    zeros = {"policy": {}, "value": {"entropy_coefficient": 0.0}, "entropy": {"value_coefficient": 0.0}}
    whole = [naive_gradient(agent, rollout, everything, part) for part in parts]
    policy = [
        naive_gradient(agent, rollout, everything, part, value_coefficient=0.0, entropy_coefficient=0.0)
        for part in parts
    ]
    of_terms = {"policy": policy}
    for name in ("value", "entropy"):
        both = [naive_gradient(agent, rollout, everything, part, **zeros[name]) for part in parts]
        of_terms[name] = [[b - a for a, b in zip(p, q, strict=True)] for p, q in zip(policy, both, strict=True)]
    learned = agent._learn(minibatch, 1e-9, CLIP, norms, measure_parts=True)
    assert learned.statistics[3] > 0, "no frame was clipped"
    for parameter, expected in zip(agent.network.parameters(), whole[0], strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5)
    assert learned.groups is not None
    assert tuple(learned.parts) == PARTS
    for found, naive in [(learned.groups, whole), *((learned.parts[name], of_terms[name]) for name in PARTS)]:
        norms_found = [found.batch_sq_norm, *found.sq_norms, *found.frame_sq_norms]
        assert norms_found == pytest.approx([sq_norm(gradient) for gradient in naive], rel=5e-3, abs=1e-8)
    assert learned.groups.sizes.sum() == minibatch.valid.sum()


@pytest.mark.parametrize("minibatch_of", ["frames", "environments"])
def test_every_epoch_deals_all_frames_to_minibatches_of_one_size(
    minibatch_of: Literal["frames", "environments"],
) -> None:
    agent = acting(minibatch_of=minibatch_of)
    dealt = list(agent._minibatches(NUM_ENVS, 10))
    assert len(dealt) == agent.config.updates_per_rollout
    for epoch in (dealt[:3], dealt[3:]):
        assert {len(rows) for rows in epoch} == {20}
        assert sorted(torch.cat(epoch).tolist()) == list(range(60))
    environments = [set((rows // 10).tolist()) for rows in dealt]
    assert all(len(some) == 2 for some in environments) == (minibatch_of == "environments")
    assert dealt[0].tolist() != dealt[3].tolist()


def test_frames_that_do_not_count_change_nothing() -> None:
    """Whatever stands in a masked frame, the update is the same."""

    def after(noise: float) -> list[Tensor]:
        agent = acting()
        frames = Frames.of(agent._roll_out(), 0.99, 0.95)
        masked = ~frames.valid
        assert masked.any()
        for values in (frames.advantages, frames.returns, frames.values):
            values[masked] += noise
        for rows in agent._minibatches(NUM_ENVS, 10):
            agent._learn(frames[rows], 1e-2, CLIP)
        return [p.detach() for p in agent.network.parameters()]

    for plain, disturbed in zip(after(0.0), after(1000.0), strict=True):
        torch.testing.assert_close(plain, disturbed, rtol=0, atol=1e-6)


def test_a_minibatch_without_a_frame_that_counts_moves_nothing_and_one_with_a_single_frame_is_finite() -> None:
    agent = acting()
    frames = Frames.of(agent._roll_out(), 0.99, 0.95)
    for count in (0, 1):
        frames.valid[:] = torch.arange(60) < count
        statistics = agent._learn(frames[torch.arange(20)], 1e-3, CLIP).statistics
        assert torch.isfinite(statistics).all()
        assert (statistics[-1] == 0) == (count == 0)


def test_one_update_of_the_first_epoch_and_one_of_a_later_one_are_measured() -> None:
    agent = acting()
    update = agent.step(num_groups=3, frame_gradients=2, parts=True)
    assert update.updates == 6
    assert update.epochs == 2
    assert update.groups is not None
    assert update.reuse is not None
    assert set(update.parts) == set(PARTS)
    assert len(update.groups.sq_norms) == 3
    assert acting(epochs=1).step(num_groups=3).reuse is None
    plain = acting().step()
    assert plain.groups is plain.reuse is None


def test_measuring_changes_no_weight() -> None:
    def weights(**measure: Any) -> list[Tensor]:
        agent = acting()
        for _ in range(3):
            agent.step(**measure)
        return [p.detach() for p in agent.network.parameters()]

    measured = weights(num_groups=3, frame_gradients=2, parts=True)
    for plain, other in zip(weights(), measured, strict=True):
        torch.testing.assert_close(plain, other, rtol=1e-3, atol=1e-5)


def test_acting_keeps_observations_alone() -> None:
    agent = acting()
    agent.step()
    assert list(agent._acting.tape._buffers) == [None]


OUTER: dict[str, Any] = {"minibatches": PPOConfig.minibatches, "scaling": "minibatch", "minibatch_frames": 20}


def test_a_fixed_minibatch_learns_what_as_many_minibatches_of_that_size_do() -> None:
    """Whatever is called an update: annealed over as many rollouts, the weights are the same bit for bit."""
    schedules: dict[str, Any] = {"learning_rate_schedule": "linear", "clip_range_schedule": "linear"}
    by_count, by_size = acting(**schedules), acting(**schedules, **OUTER)
    by_count.total_updates, by_size.total_updates = 6 * 10, 10
    for rollouts in (1, 2, 3):
        updates = by_count.step(), by_size.step()
        assert [(u.updates, u.epochs) for u in updates] == [(6, 2), (1, 1)]
        assert (by_count.updates, by_size.updates) == (6 * rollouts, rollouts)
        assert updates[0].learning_rate == updates[1].learning_rate
    for one, other in zip(by_count.network.parameters(), by_size.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("parts", [False, True])
def test_an_outer_step_is_measured_over_the_whole_rollout_before_anything_is_learned(parts: bool) -> None:
    """The advantages are normalised over the rollout, and the groups are whole environments."""
    agent = acting(**OUTER, max_grad_norm=1e9)
    agent.step()
    before = copy.deepcopy(agent.network)
    rollout = agent._roll_out()
    agent._roll_out = lambda: rollout
    update = agent.step(num_groups=3, frame_gradients=2, parts=parts)
    agent.network = before
    environments = [list(range(start, start + 20)) for start in (0, 20, 40)]
    everything = list(range(60))
    naive = [naive_gradient(agent, rollout, everything, rows) for rows in (everything, *environments)]
    assert update.groups is not None
    assert [update.groups.batch_sq_norm, *update.groups.sq_norms] == pytest.approx(
        [sq_norm(gradient) for gradient in naive], rel=1e-3
    )
    assert update.groups.sizes.tolist() == [float(rollout.valid.flatten()[rows].sum()) for rows in environments]
    assert len(update.groups.frame_sq_norms) == 2
    assert set(update.parts) == (set(PARTS) if parts else set())
    assert update.reuse is None
    if parts:
        entropy = naive_gradient(agent, rollout, everything, everything, value_coefficient=0.0)
        policy = naive_gradient(agent, rollout, everything, everything, value_coefficient=0.0, entropy_coefficient=0.0)
        assert update.parts["policy"].batch_sq_norm == pytest.approx(sq_norm(policy), rel=1e-3)
        difference = [a - b for a, b in zip(entropy, policy, strict=True)]
        assert update.parts["entropy"].batch_sq_norm == pytest.approx(sq_norm(difference), rel=1e-2)
