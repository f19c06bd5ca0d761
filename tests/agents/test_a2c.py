"""A2C: its loss's terms measured apart, against naive gradients."""

import dataclasses
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box, MultiBinary, Space
from torch import Tensor, nn

from rl_scaling.agents import A2C
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
