"""Naive versions of what the agents compute, and a source that replays a tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Space
from torch import Tensor, nn

from rl_scaling.agents import A2C, PPO
from rl_scaling.agents.actions import Actions, Bernoulli, Categorical, DiagonalGaussian
from rl_scaling.agents.ppo import Frames
from rl_scaling.agents.rollout import Rollout
from rl_scaling.envs import Transition, VectorSource, check_actions


def naive_returns(
    rewards: Tensor, terminated: Tensor, truncated: Tensor, values: Tensor, last_values: Tensor, discount: float
) -> Tensor:
    """Each return summed forwards from its own step: (n, steps)."""
    num_envs, steps = rewards.shape
    following = torch.cat([values, last_values[:, None]], dim=1)
    returns = torch.zeros(num_envs, steps)
    for e in range(num_envs):
        for t in range(steps):
            total, weight = 0.0, 1.0
            for u in range(t, steps):
                total += weight * float(rewards[e, u])
                weight *= discount
                if terminated[e, u]:
                    break
                if truncated[e, u] or u == steps - 1:
                    total += weight * float(following[e, u + 1])
                    break
            returns[e, t] = total
    return returns


def naive_advantages(
    rewards: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    values: Tensor,
    last_values: Tensor,
    discount: float,
    trace_decay: float,
) -> Tensor:
    """Each advantage as a mean of k-step returns weighted by (1 - lambda) lambda^(k-1), less the value: (n, steps)."""
    num_envs, steps = rewards.shape
    advantages = torch.zeros(num_envs, steps)
    following = torch.cat([values, last_values[:, None]], dim=1)
    for e in range(num_envs):
        for t in range(steps):
            ends = [u for u in range(t, steps) if terminated[e, u] or truncated[e, u]]
            last = ends[0] if ends else steps - 1
            total, weight_left = 0.0, 1.0
            for u in range(t, last + 1):
                k_step = sum(discount ** (w - t) * float(rewards[e, w]) for w in range(t, u + 1))
                if not terminated[e, u]:
                    k_step += discount ** (u + 1 - t) * float(following[e, u + 1])
                weight = weight_left if u == last else (1 - trace_decay) * trace_decay ** (u - t)
                total += weight * k_step
                weight_left -= weight
            advantages[e, t] = total - float(values[e, t])
    return advantages


def naive_gradient(agent: A2C, rollout: Rollout, rows: list[int]) -> list[Tensor]:
    """Gradient of the mean loss over some rows (environment by environment), by a fresh forward pass and autograd."""
    rows = [row for row in rows if rollout.valid.flatten()[row]]
    all_returns = naive_returns(*rollout.rewards_and_values, agent.config.discount)
    total = torch.zeros(())
    for row in rows:
        logits, values = agent.network(rollout.observations[row : row + 1])
        policy = distribution(agent.network.actions, logits)
        returns = all_returns.flatten()[row]
        advantage = (returns - values[0]).detach()
        log_prob = policy.log_prob(rollout.actions.flatten(0, 1)[row : row + 1].float())
        policy_loss = -advantage * log_prob.reshape(1, -1).sum()
        value_loss = (returns - values[0]) ** 2
        c = agent.config
        entropy = policy.entropy().reshape(1, -1).sum()
        total = total + policy_loss + c.value_coefficient * value_loss - c.entropy_coefficient * entropy
    return list(torch.autograd.grad(total / len(rows), list(agent.network.parameters())))


def naive_weights_ewma(history: list[list[Tensor]], decay: float) -> list[Tensor]:
    """The average of weights that were had one after the other, each counting `decay` times less than the next."""
    counts = [decay ** (len(history) - 1 - i) for i in range(len(history))]
    return [sum(c * w for c, w in zip(counts, of_layer, strict=True)) / sum(counts) for of_layer in zip(*history)]  # pyright: ignore[reportReturnType]  # noqa: B905


def naive_moments(rollouts: list[Tensor], decay: float) -> tuple[float, float]:
    """Mean and deviation of all numbers, those of a rollout counting `decay` times less than the next ones'."""
    numbers = np.concatenate([rollout.numpy() for rollout in rollouts]).astype(np.float64)
    counts = np.concatenate(
        [np.full(len(rollout), decay ** (len(rollouts) - 1 - i)) for i, rollout in enumerate(rollouts)]
    )
    mean = np.average(numbers, weights=counts)
    return float(mean), float(np.sqrt(np.average((numbers - mean) ** 2, weights=counts)))


def naive_ewma_loss(agent: PPO, proximal: nn.Module, frames: Frames, rows: list[int], clip_range: float) -> Tensor:
    """Mean loss of PPO-EWMA over some frames, one by one: three policies in its ratios (Hilton et al. 2021)."""
    c = agent.config
    total, count = torch.zeros(()), 0
    for row in rows:
        if not frames.valid[row]:
            continue
        count += 1
        observation, action, advantage = frames.observations[row : row + 1], frames.actions[row], frames.advantages[row]
        logits, values = agent.network(observation)
        policy = torch.distributions.Categorical(logits=logits[0])
        kept_near = torch.distributions.Categorical(logits=proximal(observation)[0][0])
        pi, pi_p = policy.log_prob(action).exp(), kept_near.log_prob(action).exp()
        pi_b = frames.log_probs[row].exp()
        near = (pi_p / pi_b) * (pi / pi_p).clamp(1 - clip_range, 1 + clip_range)
        objective = torch.min(pi / pi_b * advantage, near * advantage)
        value_loss = (frames.returns[row] - values[0]) ** 2
        total = total - objective + c.value_coefficient * value_loss - c.entropy_coefficient * policy.entropy()
    return total / count


def distribution(actions: Actions, parameters: Tensor) -> torch.distributions.Distribution:
    """PyTorch's own distribution with these parameters (rows, num_parameters)."""
    match actions:
        case Categorical():
            return torch.distributions.Categorical(logits=parameters)
        case Bernoulli():
            policy = torch.distributions.Bernoulli(logits=parameters)
        case DiagonalGaussian(width):
            policy = torch.distributions.Normal(parameters[..., :width], parameters[..., width:].exp())
        case _:
            raise TypeError("PyTorch has no distribution of several choices of different sizes")
    return torch.distributions.Independent(policy, 1)


def sq_norm(gradient: Sequence[Tensor]) -> float:
    return sum(float((g.double() ** 2).sum()) for g in gradient)


class TapeSource(VectorSource):
    """Random pixels, rewards and endings from a seed; one step in five only resets an environment."""

    def __init__(
        self,
        num_envs: int,
        shape: tuple[int, ...] = (4, 84, 84),
        endings: bool = True,
        space: Space[Any] | None = None,
    ):
        self.num_envs, self.observation_shape, self.endings = num_envs, shape, endings
        self.space, self.num_actions = space, 0 if space else 4

    @property
    def action_space(self) -> Space[Any]:
        return self.space or super().action_space

    def reset(self, seed: int) -> np.ndarray:
        self._random = np.random.default_rng(seed)
        return self._observe()

    def _observe(self) -> np.ndarray:
        shape = (self.num_envs, *self.observation_shape)
        if len(self.observation_shape) == 3:
            return self._random.integers(0, 256, size=shape, dtype=np.uint8)
        return self._random.normal(size=shape).astype(np.float32)

    def step(self, actions: np.ndarray) -> Transition:
        n, random = self.num_envs, self._random
        check_actions(actions, n, self.action_space)
        chance = 0.2 if self.endings else 0.0
        terminated, truncated = random.random(n) < chance, random.random(n) < chance
        return Transition(
            observations=self._observe(),
            rewards=random.choice([-1.0, 0.0, 1.0], size=n).astype(np.float32),
            terminated=terminated,
            truncated=truncated & ~terminated,
            valid=random.random(n) >= chance,
            finished=np.zeros(0, np.int64),
            episode_scores=np.zeros(0),
            episode_frames=np.zeros(0, np.int64),
        )

    def close(self) -> None:
        pass
