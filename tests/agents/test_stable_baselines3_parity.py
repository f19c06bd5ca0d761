"""From the same weights and the same rollout, our A2C and Stable-Baselines3's make the same update."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiBinary, MultiDiscrete
from stable_baselines3 import A2C as TheirA2C
from stable_baselines3 import PPO as TheirPPO
from stable_baselines3.common.vec_env import DummyVecEnv

from rl_scaling.agents import A2C, PPO
from rl_scaling.agents.config import A2CConfig
from rl_scaling.agents.rollout import Rollout
from rl_scaling.envs import Transition
from tests.agents.reference import TapeSource

NUM_ENVS, STEPS, DISCOUNT = 6, 5, 0.99


class Pixels(gymnasium.Env):
    """Has the right spaces and is never stepped."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        return np.zeros((4, 84, 84), np.uint8), {}


class Vectors(gymnasium.Env):
    """Likewise, with six numbers to see and actions of any kind."""

    observation_space = gymnasium.spaces.Box(-9, 9, (6,), np.float32)

    def __init__(self, action_space: gymnasium.Space[Any]):
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        return np.zeros(6, np.float32), {}


ACTION_SPACES = {
    "several choices": MultiDiscrete([3, 2, 5]),
    "switches": MultiBinary(4),
    "box": Box(-2.0, 1.0, (3,)),
}


class Endings(TapeSource):
    """Games end and time runs out, but no step is a mere reset: their environments have none."""

    def step(self, actions: np.ndarray) -> Transition:
        step = super().step(actions)
        step.valid[:] = True
        return step


def rolled_out(agent: A2C | PPO, source: Endings) -> Rollout:
    agent.begin(source, source.reset(5))
    rollout = agent._roll_out()
    assert rollout.terminated.any()
    assert rollout.truncated.any()
    return rollout


def policy_and_envs(space: gymnasium.Space[Any] | None) -> tuple[str, DummyVecEnv]:
    """Their network for pixels and numbered actions, or for six numbers and actions of another space."""
    if space is None:
        return "CnnPolicy", DummyVecEnv([Pixels] * NUM_ENVS)
    return "MlpPolicy", DummyVecEnv([lambda: Vectors(space)] * NUM_ENVS)


def source_for(space: gymnasium.Space[Any] | None) -> Endings:
    return Endings(NUM_ENVS) if space is None else Endings(NUM_ENVS, (6,), space=space)


def theirs(inside_root: bool, max_grad_norm: float, space: gymnasium.Space[Any] | None = None) -> TheirA2C:
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

    policy_kwargs: dict[str, Any] = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5}}
    return TheirA2C(
        *policy_and_envs(space),
        n_steps=STEPS,
        gamma=DISCOUNT,
        ent_coef=0.01,
        vf_coef=0.25,
        max_grad_norm=max_grad_norm,
        policy_kwargs=policy_kwargs if inside_root else None,
        device="cpu",
        seed=1,
    )


def copy_weights(ours: A2C | PPO, model: TheirA2C | TheirPPO) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Gives our network theirs; pairs of corresponding parameters."""
    policy: Any = model.policy
    bodies = policy.features_extractor, policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net
    source = [p for part in (*bodies, policy.action_net, policy.value_net) for p in part.parameters()]
    if isinstance(policy.action_space, Box):
        source.append(policy.log_std)
        torch.nn.init.uniform_(policy.log_std, -1, 1)  # as after some training
    pairs = list(zip(ours.network.parameters(), source, strict=True))
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other)
    return pairs


def hand_over(rollout: Rollout, model: TheirA2C | TheirPPO) -> None:
    """Fills their rollout buffer as their collect_rollouts would, step by step."""
    buffer = model.rollout_buffer
    buffer.reset()
    with torch.no_grad():
        _, log_probs, _ = model.policy.evaluate_actions(rollout.observations, rollout.actions.flatten(0, 1).float())
    log_probs = log_probs.view(NUM_ENVS, STEPS)
    # Their way at a time limit: the discounted value of the last observation joins the reward, and the game is over.
    following = torch.cat([rollout.values[:, 1:], rollout.last_values[:, None]], dim=1)
    rewards = (rollout.rewards + DISCOUNT * following * rollout.truncated).numpy()
    ends = (rollout.terminated | rollout.truncated).numpy()
    starts = np.zeros(NUM_ENVS)
    for t, observations in enumerate(rollout.observations.unflatten(0, (NUM_ENVS, STEPS)).unbind(1)):
        actions = rollout.actions[:, t].reshape(NUM_ENVS, -1).numpy()
        buffer.add(observations.numpy(), actions, rewards[:, t], starts, rollout.values[:, t], log_probs[:, t])
        starts = ends[:, t].astype(float)
    buffer.compute_returns_and_advantage(last_values=rollout.last_values, dones=starts)


def both(
    inside_root: bool, max_grad_norm: float, space: gymnasium.Space[Any] | None = None
) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    model = theirs(inside_root, max_grad_norm, space)
    model._setup_learn(total_timesteps=1000)
    config = A2CConfig(
        network="nature" if space is None else "mlp",
        rmsprop_epsilon_inside_root=inside_root,
        max_grad_norm=max_grad_norm,
    )
    source = source_for(space)
    agent = A2C(config, source.observation_shape, space or 4, total_updates=10)
    pairs = copy_weights(agent, model)
    rollout = rolled_out(agent, source)
    hand_over(rollout, model)
    model.train()
    agent._learn(agent._acting.tape, rollout)
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


@pytest.mark.parametrize("kind", ACTION_SPACES)
def test_gradient_and_update_equal_theirs_for_actions_of_every_kind(kind: str) -> None:
    for max_grad_norm in (1e9, 0.01):
        for mine, other in both(True, max_grad_norm, ACTION_SPACES[kind]):
            assert mine.grad is not None
            assert other.grad is not None
            assert (mine.grad - other.grad).norm() <= 1e-5 * other.grad.norm()
            assert other.grad.any()
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)
