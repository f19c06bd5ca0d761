"""Stable-Baselines3's losses written out group by group, and environments of every kind that never end alike."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor
from torch.nn.functional import mse_loss


class Noise(gymnasium.Env[Any, Any]):
    """Random observations and rewards; a game ends one time in ten."""

    def __init__(self, observations: spaces.Space[Any], actions: spaces.Space[Any]):
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        chance = self.np_random.random()
        return self.observation_space.sample(), self.np_random.normal(), chance < 0.1, 0.1 < chance < 0.2, {}


def noise_envs(observations: spaces.Space[Any], actions: spaces.Space[Any], num_envs: int) -> DummyVecEnv:
    envs = DummyVecEnv([lambda: Noise(observations, actions)] * num_envs)
    envs.seed(3)
    return envs


def naive_gradients(model: A2C | PPO, groups: list[np.ndarray]) -> list[Tensor]:
    """(parameters,) gradient of the mean loss over each group's frames, with advantages normalised all together.

    Args:
        model: its rollout buffer is full and still by step and environment.
        groups: numbers of frames: all of the first environment, then of the second, and so on.
    """
    buffer = model.rollout_buffer
    advantages = torch.tensor(buffer.advantages)
    if model.normalize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    gradients = []
    for group in groups:
        envs, steps = np.divmod(group, buffer.buffer_size)
        seen: Any = buffer.observations
        rows = (
            {k: torch.tensor(v[steps, envs]) for k, v in seen.items()}
            if isinstance(seen, dict)
            else torch.tensor(seen[steps, envs])
        )
        actions = torch.tensor(buffer.actions[steps, envs]).float()
        if isinstance(model.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        values, log_probs, entropy = model.policy.evaluate_actions(rows, actions)
        a = advantages[steps, envs]
        if isinstance(model, PPO):
            ratio = (log_probs - torch.tensor(buffer.log_probs[steps, envs])).exp()
            policy_loss = -torch.minimum(a * ratio, a * ratio.clip(1 - 0.2, 1 + 0.2)).mean()
        else:
            policy_loss = -(a * log_probs).mean()
        value_loss = mse_loss(torch.tensor(buffer.returns[steps, envs]), values.flatten())
        entropy_loss = log_probs.mean() if entropy is None else -entropy.mean()
        loss = policy_loss + model.ent_coef * entropy_loss + model.vf_coef * value_loss
        gradients.append(flat(torch.autograd.grad(loss, list(model.policy.parameters()))))
    return gradients


def flat(gradient: Any) -> Tensor:
    return torch.cat([part.flatten() for part in gradient])
