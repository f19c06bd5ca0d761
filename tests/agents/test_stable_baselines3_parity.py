"""From the same weights and the same rollout, our A2C and Stable-Baselines3's make the same update."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C as TheirA2C
from stable_baselines3.common.vec_env import DummyVecEnv

from rl_scaling.agents import A2C
from rl_scaling.agents.rollout import Rollout
from rl_scaling.config import A2CConfig
from rl_scaling.envs import Transition
from tests.agents.reference import TapeSource

NUM_ENVS, STEPS, DISCOUNT = 6, 5, 0.99


class Pixels(gymnasium.Env):
    """Has the right spaces and is never stepped."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        return np.zeros((4, 84, 84), np.uint8), {}


class Endings(TapeSource):
    """Games end and time runs out, but no step is a mere reset: their environments have none. Keeps what it gave."""

    def __init__(self, num_envs: int):
        super().__init__(num_envs)
        self.given: list[Transition] = []

    def step(self, actions: np.ndarray) -> Transition:
        step = super().step(actions)
        step.valid[:] = True
        self.given.append(step)
        return step


def theirs(inside_root: bool, max_grad_norm: float) -> TheirA2C:
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

    policy_kwargs: dict[str, Any] = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5}}
    return TheirA2C(
        "CnnPolicy",
        DummyVecEnv([Pixels] * NUM_ENVS),
        n_steps=STEPS,
        gamma=DISCOUNT,
        ent_coef=0.01,
        vf_coef=0.25,
        max_grad_norm=max_grad_norm,
        policy_kwargs=policy_kwargs if inside_root else None,
        device="cpu",
        seed=1,
    )


def copy_weights(ours: A2C, model: TheirA2C) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Gives our network theirs; pairs of corresponding parameters."""
    policy = model.policy
    source = [*policy.features_extractor.parameters(), *policy.action_net.parameters(), *policy.value_net.parameters()]
    pairs = list(zip(ours.network.parameters(), source, strict=True))
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other)
    return pairs


def hand_over(
    rollout: Rollout,
    values: torch.Tensor,
    last_values: torch.Tensor,
    rewards: np.ndarray,
    ends: np.ndarray,
    model: TheirA2C,
) -> None:
    """Fills their rollout buffer as their collect_rollouts would: (n, steps) arrays, step by step."""
    buffer = model.rollout_buffer
    buffer.reset()
    starts = np.zeros(NUM_ENVS)
    for t, observations in enumerate(by_step(rollout)):
        log_probs = torch.zeros(NUM_ENVS)  # not used by their A2C's update
        buffer.add(
            observations.numpy(), rollout.actions[:, t, None].numpy(), rewards[:, t], starts, values[:, t], log_probs
        )
        starts = ends[:, t].astype(float)
    buffer.compute_returns_and_advantage(last_values=last_values, dones=starts)


def by_step(rollout: Rollout) -> list[torch.Tensor]:
    return list(rollout.observations.unflatten(0, (NUM_ENVS, STEPS)).unbind(1))


def both(inside_root: bool, max_grad_norm: float) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    model = theirs(inside_root, max_grad_norm)
    model._setup_learn(total_timesteps=1000)
    config = A2CConfig(rmsprop_epsilon_inside_root=inside_root, max_grad_norm=max_grad_norm)
    source = Endings(NUM_ENVS)
    agent = A2C(config, source.observation_shape, 4, total_updates=10)
    pairs = copy_weights(agent, model)
    agent.begin(source, source.reset(5))
    assert agent._actor is not None
    rollout = agent._actor.roll_out(STEPS, agent.generator)
    with torch.no_grad():
        values = torch.stack([agent.network(o)[1] for o in by_step(rollout)], dim=1)
        last_values = agent.network(agent._actor._current)[1]
    following = torch.cat([values[:, 1:], last_values[:, None]], dim=1).numpy()
    rewards, terminated, truncated = (
        np.stack([getattr(s, name) for s in source.given], axis=1) for name in ("rewards", "terminated", "truncated")
    )
    assert terminated.any()
    assert truncated.any()
    # Their way at a time limit: the discounted value of the last observation joins the reward, and the game is over.
    hand_over(rollout, values, last_values, rewards + DISCOUNT * following * truncated, terminated | truncated, model)
    model.train()
    agent._learn(agent._actor.tape, rollout)
    return pairs


@pytest.mark.parametrize("inside_root", [True, False])
def test_gradient_and_update_equal_theirs(inside_root: bool) -> None:
    # After train() their gradients are still there, clipped; the second pass clips hard, the first not at all.
    for max_grad_norm in (1e9, 0.01):
        for mine, other in both(inside_root, max_grad_norm):
            assert mine.grad is not None
            assert other.grad is not None
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5 * float(other.grad.abs().max()))
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)
