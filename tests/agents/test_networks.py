"""Networks for images of any size; in bfloat16: how far the gradient goes from float32's, and what follows it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.torch_layers import NatureCNN
from torch import Tensor, nn

from rl_scaling.agents import A2C
from rl_scaling.agents.config import A2CConfig
from rl_scaling.agents.networks import ActorCritic, make_network, suited_network
from rl_scaling.agents.precision import MOST_GRADIENT_ERROR, gradient_error
from rl_scaling.agents.rollout import Rollout
from rl_scaling.config import ConfigError
from tests.agents.reference import TapeSource, sq_norm


def agent_with(network: str) -> A2C:
    source = TapeSource(6, (6,) if network == "mlp" else (4, 84, 84))
    agent = A2C(
        A2CConfig(network="mlp" if network == "mlp" else "small"), source.observation_shape, 4, total_updates=10, seed=3
    )
    nn.init.orthogonal_(agent.network.policy_head.weight, 1.0)
    agent.begin(source, source.reset(5))
    return agent


@pytest.mark.parametrize("network", ["small", "mlp"])
def test_the_error_is_of_the_size_of_rounding(network: str) -> None:
    agent = agent_with(network)
    assert 2**-10 < agent.gradient_error(torch.bfloat16) < MOST_GRADIENT_ERROR
    assert agent.network.compute_dtype is None


def test_more_digits_err_less() -> None:
    """In a smooth network: a ReLU near its edge may flip in any precision."""
    agent = agent_with("mlp")
    rollout = agent._roll_out()
    errors = [
        gradient_error(
            agent.network, lambda x, v: agent._total(agent._losses(x, v, rollout)), rollout.observations, dtype
        )
        for dtype in (torch.bfloat16, torch.float16)
    ]
    assert 4 < errors[0] / errors[1] < 16  # three bits


def test_error_by_hand() -> None:
    network = make_network("mlp", (2,), 2)
    observations = torch.tensor([[1.0 + 2**-12, 0.0]])

    def loss(logits: Tensor, values: Tensor) -> Tensor:
        return logits.sum() + values.sum()

    exact, rounded = (gradient(network, observations, dtype, loss) for dtype in (None, torch.bfloat16))
    expected = (sum((a - b).square().sum() for a, b in zip(exact, rounded, strict=True)) / sq_norm(exact)) ** 0.5
    assert gradient_error(network, loss, observations, torch.bfloat16) == pytest.approx(float(expected), rel=1e-5)


def gradient(
    network: ActorCritic, observations: Tensor, dtype: torch.dtype | None, loss: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
        features = network._bodies(observations)
    logits, values = network._heads(*(f.float() for f in features))
    return list(torch.autograd.grad(loss(logits, values), list(network.parameters())))


@pytest.mark.parametrize("network", ["small", "mlp"])
def test_replay_and_norms_follow_the_layers_precision(network: str) -> None:
    """Gradient and norms of parts, from the tape of an acting pass in bfloat16, against a fresh pass under autocast."""
    agent = agent_with(network)
    agent.network.compute_dtype = torch.bfloat16
    rollout = agent._roll_out()
    assert rollout.logits.dtype == rollout.values.dtype == torch.float32
    norms = agent._group_sq_norms(rollout, 3, 4)
    loss = agent._total(agent._losses(*agent._acting.tape.replay(norms), rollout))
    replayed = torch.autograd.grad(loss, agent._parameters)
    fresh = gradient_of(agent, rollout)
    for found, expected in zip(replayed, fresh, strict=True):
        assert found.dtype == torch.float32
        assert float((found - expected).norm() / expected.norm()) < MOST_GRADIENT_ERROR
    groups = agent._gradient_groups(rollout.valid, norms, replayed)
    agent.network.compute_dtype = None
    for group, found in zip(norms.groups, groups.sq_norms, strict=True):
        inside = torch.zeros(30, dtype=torch.bool)
        inside[group] = True
        part = inside & rollout.valid.flatten()
        alone = dataclasses.replace(rollout, valid=part.view(6, 5), frames=int(part.sum()))
        assert found == pytest.approx(sq_norm(gradient_of(agent, alone)), rel=2 * MOST_GRADIENT_ERROR)


def gradient_of(agent: A2C, rollout: Rollout) -> list[Tensor]:
    logits, values = agent.network(rollout.observations)
    return list(torch.autograd.grad(agent._total(agent._losses(logits, values, rollout)), agent._parameters))


@pytest.mark.parametrize("side", [(84, 84), (36, 36), (64, 96), (210, 160)])
def test_nature_equals_stable_baselines3_for_images_of_any_size(side: tuple[int, int]) -> None:
    space = gymnasium.spaces.Box(0, 255, (3, *side), np.uint8)
    theirs = NatureCNN(space)
    ours = make_network("nature", space.shape, 4)
    with torch.no_grad():
        for mine, other in zip(ours.policy_body.parameters(), theirs.parameters(), strict=True):
            mine.copy_(other)
    pixels = torch.rand(2, *space.shape)
    torch.testing.assert_close(ours.policy_body(pixels), theirs(pixels))


@given(name=st.sampled_from(["nature", "small", "minatar"]), height=st.integers(1, 60), width=st.integers(1, 60))
@settings(max_examples=40)
def test_convolutions_take_what_leaves_something_and_refuse_the_rest(name: str, height: int, width: int) -> None:
    fewest, shape = {"nature": 36, "small": 20, "minatar": 3}[name], (2, height, width)
    if min(height, width) >= fewest:
        logits, values = make_network(name, shape, 3)(torch.zeros(2, *shape))
        assert (logits.shape, values.shape) == ((2, 3), (2,))
        assert suited_network(name, shape) == name
    else:
        other = next(n for n, side in (("small", 20), ("minatar", 3), ("mlp", 0)) if min(height, width) >= side)
        with pytest.raises(
            ConfigError, match=f"'{name}' needs images of {fewest} x {fewest} pixels or more.*use {other}"
        ):
            make_network(name, shape, 3)
        assert suited_network(name, shape) == other


@pytest.mark.parametrize("shape", [(4,), (), (4, 84), (2, 4, 84, 84)])
def test_what_is_no_image_is_for_an_mlp(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"needs images.*use mlp"):
        make_network("small", shape, 3)
    assert suited_network("nature", shape) == "mlp"


def test_a_gaussians_deviations_begin_at_1_and_are_the_same_for_all_observations() -> None:
    network = make_network("mlp", (3,), Box(-1, 1, (2,)))
    parameters, _ = network(torch.randn(5, 3))
    assert parameters.shape == (5, 4)
    assert not parameters[:, 2:].any()
    assert [name for name, _ in network.named_parameters()][-1] == "log_std.weight"
    assert "log_std.weight" not in make_network("mlp", (3,), 2).state_dict()


@pytest.mark.parametrize("shape", [(4, 10, 10), (10, 10, 10), (1, 3, 3), (3, 5, 9)])
def test_the_network_of_minatar_is_the_published_one(shape: tuple[int, int, int]) -> None:
    """Young & Tian 2019: 16 filters of 3 x 3, then 128 units; by hand."""
    network = make_network("minatar", shape, 6)
    channels, rows, columns = shape
    body: Any = network.policy_body
    assert body[0].weight.shape == (16, channels, 3, 3)
    assert body[3].weight.shape == (128, 16 * (rows - 2) * (columns - 2))
    observations = torch.rand(5, *shape)
    features = torch.relu(nn.functional.conv2d(observations, body[0].weight, body[0].bias))
    features = torch.relu(features.flatten(1) @ body[3].weight.T + body[3].bias)
    logits, values = network(observations)
    assert torch.allclose(logits, network.policy_head(features), atol=1e-6)
    assert torch.allclose(values, network.value_head(features)[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "nature",
            (4, 10, 10),
            "needs images of 36 x 36 pixels or more, not observations of shape (4, 10, 10); use minatar",
        ),
        ("small", (4,), "needs images of 20 x 20 pixels or more, not observations of shape (4,); use mlp"),
        (
            "minatar",
            (4, 2, 10),
            "needs images of 3 x 3 pixels or more, not observations of shape (4, 2, 10); use mlp",
        ),
        ("minatar", (4,), "needs images of 3 x 3 pixels or more, not observations of shape (4,); use mlp"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_network(name, shape, 4)
