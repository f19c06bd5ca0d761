"""PPO-EWMA: PPO kept near an average of its own past weights (Hilton et al. 2021, arXiv 2110.00641).

The old policy of PPO does two things. It is the behaviour policy, which collected the data and by which they are
weighted; and it is the proximal policy, which the new one is kept near. How near depends on its age: with half a batch
it is as many updates but half as many frames old, and PPO learns differently. Here the proximal policy is an
exponentially weighted average of the weights, whose age in frames can be kept. The settings are
`rl_scaling.agents.config.PPOEWMAConfig`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rl_scaling.agents.agent import Losses
from rl_scaling.agents.config import PPOEWMAConfig
from rl_scaling.agents.networks import ActorCritic
from rl_scaling.agents.ppo import PPO, Frames, Learned
from rl_scaling.agents.rollout import Rollout


class PPOEWMA(PPO):
    """PPO with a proximal policy of its own; arguments as `Agent`.

    Of an update `clip_fraction` and `approx_kl` tell how far the policy is from the proximal one.
    """

    config: PPOEWMAConfig

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._proximal = WeightsEWMA(self.network)
        self._moments = MomentsEWMA()

    def _frames(self, rollout: Rollout) -> Frames:
        """The frames to learn from; their advantages are normalised by moments of this rollout and those before."""
        frames = super()._frames(rollout)
        if not self.config.normalize_advantages:
            return frames
        num_envs = rollout.valid.shape[0]
        self._moments.update(
            frames.advantages[frames.valid], self.config.decay_at(self.config.advantage_decay, num_envs)
        )
        return replace(frames, advantages=self._moments.normalise(frames.advantages), normalised=True)

    def loss_terms(self, rollout: Rollout) -> Callable[[Tensor, Tensor], Losses]:
        """See `PPO.loss_terms`. An average of weights that are kept is these weights: all three policies are one."""
        kept = copy.copy(self)
        kept._proximal = WeightsEWMA(self.network)
        return super(PPOEWMA, kept).loss_terms(rollout)

    def _learn(self, *arguments: Any, **options: Any) -> Learned:
        """One update, after which the proximal policy takes its step."""
        learned = super()._learn(*arguments, **options)
        num_envs = self._acting.source.num_envs
        self._proximal.update(self.network, self.config.decay_at(self.config.proximal_decay, num_envs))
        return learned

    def _objective(self, log_probs: Tensor, frames: Frames, clip_range: float) -> tuple[Tensor, Tensor]:
        """(m,) min(pi/pi_b A, pi_p/pi_b clip(pi/pi_p) A) of every frame, and log pi/pi_p.

        pi is the policy that learns, pi_b the behaviour policy and pi_p the proximal one (Hilton et al. 2021).
        """
        proximal = self._proximal_log_probs(frames)
        log_ratios, advantages = log_probs - proximal, self._advantages(frames)
        clipped = log_ratios.exp().clamp(1 - clip_range, 1 + clip_range)
        weighted = (log_probs - frames.log_probs).exp() * advantages
        kept_near = (proximal - frames.log_probs).exp() * clipped * advantages
        return torch.min(weighted, kept_near), log_ratios

    @torch.no_grad()
    def _proximal_log_probs(self, frames: Frames) -> Tensor:
        """(m,) of the actions that were chosen, by the proximal policy."""
        network = self._proximal.network
        network.compute_dtype = self.network.compute_dtype
        logits, _ = network(frames.observations)
        return network.actions.judge(logits, frames.actions)[0]

    def state_dict(self) -> dict[str, Any]:
        """See `Agent.state_dict`."""
        return super().state_dict() | {"proximal": self._proximal.state_dict(), "moments": self._moments.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Agent.load_state_dict`."""
        super().load_state_dict(state)
        self._proximal.load_state_dict(state["proximal"])
        self._moments.load_state_dict(state["moments"])


class WeightsEWMA:
    """An average of a network's weights over updates, each counting `decay` times less than the one after it.

    theta_p(t) = sum_i decay^(t-i) theta(i) / sum_i decay^(t-i) from i = 0, the weights at the start: what has not been
    seen has no weight, so nothing is biased to the start. The decay may change between updates.

    Attributes:
        network: has the averages for its weights; is not learned.
    """

    def __init__(self, network: ActorCritic):
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._weight = 1.0

    @torch.no_grad()
    def update(self, network: ActorCritic, decay: float) -> None:
        """Count the weights that a network has now."""
        self._weight = decay * self._weight + 1
        for average, weight in zip(self.network.parameters(), network.parameters(), strict=True):
            average.lerp_(weight, 1 / self._weight)

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._weight = state["weight"]


class MomentsEWMA:
    """Mean and variance of numbers that come in rollouts, a rollout counting `decay` times less than the one after it.

    Within a rollout all numbers count alike; sums are kept of the weights, the numbers and their squares, so that
    nothing is biased to the start.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)

    def update(self, numbers: Tensor, decay: float) -> None:
        """Count the (m,) numbers of a rollout."""
        numbers = numbers.double()
        new = torch.stack([torch.ones_like(numbers), numbers, numbers**2]).sum(1)
        self._sums = decay * self._sums.to(new.device) + new

    def normalise(self, numbers: Tensor) -> Tensor:
        """Numbers less the mean, over the standard deviation; as they are where nothing was counted."""
        weight, total, squares = self._sums
        mean = total / weight.clamp(min=1e-12)
        variance = (squares / weight.clamp(min=1e-12) - mean**2).clamp(min=0)
        normalised = (numbers - mean) / (variance.sqrt() + 1e-8)
        return torch.where(weight > 0, normalised, numbers).to(numbers.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums = state["sums"]
