"""Advantage actor-critic: act a few steps in every environment, take one gradient, update (Mnih et al. 2016).

The weights do not change between acting and learning, so the acting pass itself is differentiated (see
`rl_scaling.agents.replay`) and no second forward pass is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rl_scaling.agents.agent import Agent, Losses, Update
from rl_scaling.agents.config import A2CConfig
from rl_scaling.agents.optimizers import RMSprop
from rl_scaling.agents.replay import Tape
from rl_scaling.agents.rollout import Rollout, n_step_returns
from rl_scaling.noise.clusters import cluster_slices
from rl_scaling.noise.torch.group_gradients import GroupSqNorms

if TYPE_CHECKING:
    from rl_scaling.agents.stack import Measure, Stack


class A2C(Agent[A2CConfig]):
    """One update from every rollout; arguments as `Agent`."""

    keeps_layers = True

    def step(self, *, num_groups: int = 1, frame_gradients: int = 0, parts: bool = False) -> Update:
        """One rollout and one update; see `Agent.step`."""
        rollout = self._roll_out()
        norms = self._group_sq_norms(rollout, num_groups, frame_gradients) if num_groups > 1 else None
        return self._learn(self._acting.tape, rollout, norms, measure_parts=parts)

    @classmethod
    def step_together(cls, stack: Stack[A2C], measure: Sequence[Measure]) -> list[Update]:
        """One rollout and one update of each agent; see `Agent.step_together`."""
        agents = stack.agents
        rollout, played = stack.roll_out()
        of_agents = [
            agent._group_sq_norms(rollout.of(k), asked["num_groups"], asked["frame_gradients"]) if asked else None
            for k, (agent, asked) in enumerate(zip(agents, measure, strict=True))
        ]
        norms = stack.joined(of_agents, rows=rollout.valid[0].numel())
        logits, values = stack.replay(norms)
        losses = agents[0]._losses(logits, values, rollout)
        rates = [agent._learning_rate() for agent in agents]
        descents = stack.descend(agents[0]._weighted(losses), rollout.valid, rates, norms, measure)
        terms = zip(*(loss.detach().unbind() for loss in losses), strict=True)
        return [
            Update(
                **vars(own),
                policy_loss=policy_loss,
                value_loss=value_loss,
                entropy=entropy,
                grad_norm=descent.grad_norm,
                learning_rate=rate,
                groups=descent.groups,
                parts=descent.parts,
            )
            for own, (policy_loss, value_loss, entropy), descent, rate in zip(
                played, terms, descents, rates, strict=True
            )
        ]

    def returns(self, rollout: Rollout) -> Tensor:
        """(..., n, steps) what the values learn, and less the values what actions are judged by; without gradient."""
        return n_step_returns(*rollout.rewards_and_values, self.config.discount)

    def loss_terms(self, rollout: Rollout) -> Callable[[Tensor, Tensor], Losses]:
        """See `Agent.loss_terms`."""
        return lambda logits, values: self._weighted(self._losses(logits, values, rollout))

    def _learn(
        self, tape: Tape, rollout: Rollout, norms: GroupSqNorms | None = None, *, measure_parts: bool = False
    ) -> Update:
        """One update from a rollout that is still on the tape."""
        losses = self._losses(*tape.replay(norms), rollout)
        rate = self._learning_rate()
        grad_norm, groups, parts = self._descend(losses, rollout.valid, rate, norms, measure_parts=measure_parts)
        policy_loss, value_loss, entropy = (loss.detach() for loss in losses)
        return Update(
            frames=rollout.frames,
            policy_loss=policy_loss,
            value_loss=value_loss,
            entropy=entropy,
            grad_norm=grad_norm,
            learning_rate=rate,
            episode_scores=rollout.episode_scores,
            episode_frames=rollout.episode_frames,
            groups=groups,
            parts=parts,
        )

    def _losses(self, logits: Tensor, values: Tensor, rollout: Rollout) -> Losses:
        """Policy loss -log pi(a) A, value loss (R - V)^2 and entropy: means over valid frames, before coefficients.

        Args:
            logits: (..., n * steps, num_parameters); the dimensions in front are agents'.
            values: (..., n * steps).
            rollout: of these.
        """
        returns, valid = self.returns(rollout).flatten(-2), rollout.valid.flatten(-2)
        of_frames = valid.dim()  # where the dimensions of an action begin
        actions = rollout.actions.flatten(of_frames - 1, of_frames)
        weights = valid / valid.sum(-1, keepdim=True).clamp(min=1)
        log_probs, entropies = self.network.actions.judge(logits, actions)
        policy_loss = -(weights * (returns - values).detach() * log_probs).sum(-1)
        value_loss = (weights * (returns - values) ** 2).sum(-1)
        entropy = (weights * entropies).sum(-1)
        return policy_loss, value_loss, entropy

    def _group_sq_norms(self, rollout: Rollout, num_groups: int, frame_gradients: int) -> GroupSqNorms:
        """Groups of whole environments, and single frames drawn at random; rows are environment by environment."""
        num_envs, steps = rollout.valid.shape
        groups = cluster_slices(np.arange(num_envs + 1) * steps, num_groups)
        return GroupSqNorms(groups, self._frames_to_measure(rollout.valid, frame_gradients), device=self.device)

    def _loss_of(self, rollout: Rollout) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda logits, values: self._total(self._losses(logits, values, rollout))

    def _make_optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        return RMSprop(
            self._parameters,
            c.learning_rate,
            c.rmsprop_decay,
            c.rmsprop_epsilon,
            inside_root=c.rmsprop_epsilon_inside_root,
        )
