"""Returns and advantages of a rollout."""

from __future__ import annotations

import torch
from torch import Tensor


def n_step_returns(
    rewards: Tensor, terminated: Tensor, truncated: Tensor, values: Tensor, last_values: Tensor, discount: float
) -> Tensor:
    """Discounted sums of rewards to the end of the rollout, bootstrapped there and at time limits.

    R_t = r_t + discount * (0 if terminated, V(s_{t+1}) if truncated, else R_{t+1}), with R_T = V(s_T)
    (Mnih et al. 2016, algorithm S3).

    Args:
        rewards, terminated, truncated: (n, steps).
        values: (n, steps), V of the observation each step acted on. The step after a truncation acts on the final
            observation of the episode, so its value is the one to bootstrap from.
        last_values: (n,), V of the observations after the rollout.

    Returns:
        (n, steps) returns, without gradient.
    """
    following_value = last_values.detach()
    following_return = following_value
    returns = torch.empty_like(rewards)
    for t in range(rewards.shape[1] - 1, -1, -1):
        following = torch.where(truncated[:, t], following_value, following_return)
        following_return = rewards[:, t] + discount * torch.where(terminated[:, t], 0.0, following)
        following_value = values[:, t].detach()
        returns[:, t] = following_return
    return returns


def generalized_advantages(
    rewards: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    values: Tensor,
    last_values: Tensor,
    discount: float,
    trace_decay: float,
) -> Tensor:
    """Sums of temporal differences that fade with distance (Schulman et al. 2016, eq. 16).

    A_t = d_t + discount * trace_decay * (0 at the end of an episode, else A_{t+1}), with the temporal difference
    d_t = r_t + discount * (0 if terminated, else V(s_{t+1})) - V(s_t). A time limit ends the sum and is bootstrapped.

    Args:
        rewards, terminated, truncated, values, last_values, discount: as in `n_step_returns`.
        trace_decay: lambda; 1 gives the n-step returns less the values, 0 the temporal differences.

    Returns:
        (n, steps) advantages, without gradient; with the values added, they are returns for the value function.
    """
    following = torch.cat([values, last_values[:, None]], dim=1).detach()
    differences = rewards + discount * torch.where(terminated, 0.0, following[:, 1:]) - following[:, :-1]
    carried = discount * trace_decay * ~(terminated | truncated)
    advantages = torch.empty_like(rewards)
    advantage = torch.zeros_like(last_values)
    for t in range(rewards.shape[1] - 1, -1, -1):
        advantage = differences[:, t] + carried[:, t] * advantage
        advantages[:, t] = advantage
    return advantages
