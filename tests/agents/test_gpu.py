"""What only a CUDA device can show: the CPU's numbers, graphs that give those of eager acting, bfloat16."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
import torch

from rl_scaling.agents import A2C, PPO, Agent
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.precision import MOST_GRADIENT_ERROR
from rl_scaling.agents.rollout import PipelinedActor
from rl_scaling.envs import AlternatingVector, make_vector
from rl_scaling.envs.config import AtariConfig
from tests.agents.reference import TapeSource

pytestmark = pytest.mark.gpu
BREAKOUT = AtariConfig(game="Breakout", num_envs=8, max_start_steps=20)


@pytest.fixture(autouse=True)
def full_precision() -> Any:
    """TF32 keeps ten bits of a product's factors: off, so that the CPU's numbers can be expected."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def learned(agent: Agent[Any], updates: int = 4) -> list[torch.Tensor]:
    """Parameters after some updates, each with a measurement."""
    for _ in range(updates):
        assert agent.step(num_groups=4, frame_gradients=3).groups is not None
    return [p.detach().cpu() for p in agent.network.parameters()]


def test_a2c_updates_equal_the_cpus() -> None:
    """The same rollout, whose actions the tape ignores, on both devices: gradients, norms and the weights after it."""
    found: dict[str, dict[str, Any]] = {}
    actions = torch.randint(0, 4, (6, 5), generator=torch.Generator().manual_seed(0))
    for device in ("cpu", "cuda"):
        source = TapeSource(6)
        agent = A2C(A2CConfig(network="small"), source.observation_shape, 4, total_updates=10, seed=3, device=device)
        agent.begin(source, source.reset(5))
        rollout = agent._roll_out()
        # Each device draws its own random numbers: these actions were not taken, but any will do for a gradient.
        rollout.actions.copy_(actions)
        norms = agent._group_sq_norms(rollout, 3, 4)
        update = agent._learn(agent._acting.tape, rollout, norms)
        assert update.groups is not None
        found[device] = {
            "losses": torch.stack([update.policy_loss, update.value_loss, update.entropy, update.grad_norm]).cpu(),
            "norms": torch.tensor([*update.groups.sq_norms, *update.groups.frame_sq_norms]),
            "gradient": [p.grad.cpu() for p in agent.network.parameters() if p.grad is not None],
            "weights": [p.detach().cpu() for p in agent.network.parameters()],
        }
    for name, expected in found["cpu"].items():
        torch.testing.assert_close(found["cuda"][name], expected, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_graphs_replay_what_is_computed_without_them(algorithm: str) -> None:
    results = []
    for capture in (False, True):
        with closing(make_vector(BREAKOUT, alternate=True)) as source:
            shape, actions = source.observation_shape, source.num_actions
            agent: Agent[Any]
            if algorithm == "a2c":
                agent = A2C(A2CConfig(network="small"), shape, actions, total_updates=10, device="cuda")
            else:
                config = PPOConfig(network="small", rollout_steps=4, minibatches=2)
                agent = PPO(config, shape, actions, total_updates=100, device="cuda")
            agent.capture_graphs = capture
            agent.begin(source, source.reset(3))
            results.append(learned(agent))
            actor = agent._acting
            assert isinstance(actor, PipelinedActor)
            assert len(actor._graphs) == (2 * agent.config.rollout_steps if capture else 0)
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_graphs_follow_the_weights_and_the_pixels() -> None:
    """What a replayed graph gives is what the network, as it is then, gives for the tape's own observations."""
    with closing(make_vector(BREAKOUT, alternate=True)) as source:
        assert isinstance(source, AlternatingVector)
        agent = A2C(
            A2CConfig(network="small", learning_rate=1e-2), source.observation_shape, source.num_actions,
            total_updates=10, device="cuda",
        )  # fmt: skip
        agent.begin(source, source.reset(3))
        for _ in range(4):
            rollout = agent._roll_out()
            with torch.no_grad():
                logits, values = agent.network(rollout.observations)
            torch.testing.assert_close(rollout.logits.flatten(0, 1), logits, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(rollout.values.flatten(), values, rtol=1e-3, atol=1e-4)
            agent._learn(agent._acting.tape, rollout)


def test_bfloat16_gradients_are_close_to_float32s() -> None:
    with closing(make_vector(BREAKOUT, alternate=True)) as source:
        agent = A2C(A2CConfig(), source.observation_shape, source.num_actions, total_updates=10, device="cuda")
        agent.begin(source, source.reset(3))
        assert agent.gradient_error(torch.bfloat16) < MOST_GRADIENT_ERROR
        agent.network.compute_dtype = torch.bfloat16
        assert all(torch.isfinite(p).all() for p in learned(agent))
