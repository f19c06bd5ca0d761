"""A2C: its loss's terms measured apart, against naive gradients, and its optimiser against TensorFlow's."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiBinary, Space
from torch import Tensor, nn

from rl_scaling.agents import A2C
from rl_scaling.agents.a2c import RMSpropInsideRoot
from rl_scaling.agents.config import A2CConfig
from rl_scaling.agents.rollout import Rollout
from rl_scaling.records import PARTS
from tests.agents.reference import TapeSource, naive_gradient, sq_norm

CONFIG = A2CConfig(network="mlp", entropy_coefficient=0.1)


def acting(network: str = "mlp", space: Space[Any] | None = None) -> A2C:
    source = TapeSource(6, (6,) if network == "mlp" else (4, 84, 84), space=space)
    config = dataclasses.replace(CONFIG, network=network)
    agent = A2C(config, source.observation_shape, source.action_space, total_updates=10, seed=3)
    nn.init.orthogonal_(
        agent.network.policy_head.weight, 1.0, torch.Generator().manual_seed(0)
    )  # as after some training
    agent.begin(source, source.reset(5))
    return agent


def naive_parts(agent: A2C, rollout: Rollout, rows: list[int]) -> dict[str, list[Tensor]]:
    """The loss is linear in its coefficients: each term is what its coefficient adds to the policy's."""

    def gradient(**coefficients: float) -> list[Tensor]:
        config, agent.config = agent.config, dataclasses.replace(agent.config, **coefficients)
        try:
            return naive_gradient(agent, rollout, rows)
        finally:
            agent.config = config

    policy = gradient(value_coefficient=0.0, entropy_coefficient=0.0)
    with_value, with_entropy = gradient(entropy_coefficient=0.0), gradient(value_coefficient=0.0)
    value, entropy = ([b - a for a, b in zip(policy, other, strict=True)] for other in (with_value, with_entropy))
    return dict(zip(PARTS, (policy, value, entropy), strict=True))


@pytest.mark.parametrize(
    ("network", "space"),
    [("mlp", None), ("small", None), ("mlp", Box(-1, 1, (2,))), ("small", Box(-1, 1, (2,))), ("mlp", MultiBinary(3))],
    ids=["mlp", "small", "box", "box by pixels", "switches"],
)
def test_parts_equal_naive_gradients(network: str, space: Space[Any] | None) -> None:
    agent = acting(network, space)
    assert agent._actor is not None
    rollout = agent._actor.roll_out(5, agent.generator)
    norms = agent._group_sq_norms(rollout, num_groups=4, frame_gradients=3)
    rows = [list(range(30)), *(list(range(group.start, group.stop)) for group in norms.groups)]
    rows += [[row] for row in norms.rows]
    expected = [naive_parts(agent, rollout, some) for some in rows]
    whole = [naive_gradient(agent, rollout, some) for some in rows]
    update = agent._learn(agent._actor.tape, rollout, norms, measure_parts=True)
    assert tuple(update.parts) == PARTS
    assert update.groups is not None
    for found, naive in [(update.parts[part], [e[part] for e in expected]) for part in PARTS] + [
        (update.groups, whole)
    ]:
        norms_found = [found.batch_sq_norm, *found.sq_norms, *found.frame_sq_norms]
        assert norms_found == pytest.approx([sq_norm(gradient) for gradient in naive], rel=2e-3, abs=1e-9)


def test_measuring_parts_changes_nothing_that_is_learned() -> None:
    def weights(parts: bool) -> list[Tensor]:
        agent = acting()
        for _ in range(3):
            agent.step(num_groups=3, frame_gradients=2, parts=parts)
        return [p.detach() for p in agent.network.parameters()]

    for plain, measured in zip(weights(False), weights(True), strict=True):
        assert torch.equal(plain, measured)


def test_parts_are_taken_only_when_asked_for() -> None:
    agent = acting()
    assert agent.step().parts == agent.step(parts=True).parts == agent.step(num_groups=2).parts == {}
    assert set(agent.step(num_groups=2, parts=True).parts) == set(PARTS)


def test_rmsprop_equals_stable_baselines3_step_by_step() -> None:
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4)) for _ in range(2))
    mine = RMSpropInsideRoot([ours], lr=7e-4, decay=0.99, epsilon=1e-5)
    other = RMSpropTFLike([theirs], lr=7e-4, alpha=0.99, eps=1e-5)
    random = np.random.default_rng(0)
    for _ in range(20):
        gradient = torch.from_numpy(random.normal(size=(3, 4)).astype(np.float32))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_rmsprops_first_step_by_hand() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0]))
    p.grad = torch.tensor([2.0])
    RMSpropInsideRoot([p], lr=0.1, decay=0.9, epsilon=0.5).step()
    # v = 0.9 * 1 + 0.1 * 4 = 1.3
    torch.testing.assert_close(p.detach(), torch.tensor([1.0 - 0.1 * 2.0 / (1.3 + 0.5) ** 0.5]))


def test_rmsprops_state_goes_through_a_checkpoint() -> None:
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    first = RMSpropInsideRoot([p], lr=0.1, decay=0.9, epsilon=1e-5)
    p.grad = torch.tensor([1.0, -2.0, 3.0])
    first.step()
    second = RMSpropInsideRoot([q], lr=0.1, decay=0.9, epsilon=1e-5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        q.copy_(p)
    q.grad = p.grad.clone()
    first.step()
    second.step()
    torch.testing.assert_close(p, q, rtol=0, atol=0)
