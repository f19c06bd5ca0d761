"""Advantage actor-critic: act a few steps in every environment, take one gradient, update (Mnih et al. 2016).

The weights do not change between acting and learning, so the acting pass itself is differentiated (see
`rl_scaling.agents.replay`) and no second forward pass is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from rl_scaling.agents.networks import ActorCritic, make_network
from rl_scaling.agents.replay import Tape
from rl_scaling.agents.rmsprop import RMSpropInsideRoot
from rl_scaling.agents.rollout import Actor, Rollout
from rl_scaling.config import A2CConfig
from rl_scaling.envs import VectorSource
from rl_scaling.noise.groups import PartNorms, whole_environments
from rl_scaling.records import PARTS


@dataclass(frozen=True)
class GradientGroups:
    """Gradients of groups of whole environments, reduced to what the noise scale needs.

    Attributes:
        sq_norms: (k,) squared norms of the groups' mean gradients.
        sizes: (k,) frames in each group.
        batch_sq_norm: squared norm of the mean gradient over all frames.
        frame_sq_norms: (m,) squared norms of the gradients of single frames drawn at random; empty if not taken.
    """

    sq_norms: np.ndarray
    sizes: np.ndarray
    batch_sq_norm: float
    frame_sq_norms: np.ndarray


@dataclass(frozen=True)
class Update:
    """What one update did. Scalars stay tensors, so that nothing waits for the device until they are read.

    `parts` are the gradients of the loss's terms as they are weighted in it (`PARTS`), where they were asked for: their
    sum is the gradient of the update, whose groups are in `groups`.
    """

    frames: int
    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    grad_norm: Tensor
    learning_rate: float
    episode_scores: np.ndarray
    episode_frames: np.ndarray
    groups: GradientGroups | None
    parts: dict[str, GradientGroups]


class A2C:
    """The agent: its network, optimiser and random numbers.

    Args:
        config: the algorithm's settings.
        observation_shape: shape of one observation, (4, 84, 84) for Atari.
        num_actions: number of discrete actions.
        total_updates: updates of the whole run, over which a linear learning rate falls to 0.
        seed: of the initial weights and the actions.
        device: where the network lives.
        network: a network of one's own instead of the one the config names.
    """

    def __init__(
        self,
        config: A2CConfig,
        observation_shape: tuple[int, ...],
        num_actions: int,
        *,
        total_updates: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        network: ActorCritic | None = None,
    ):
        self.config = config
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = network or make_network(config.network, observation_shape, num_actions)
        self.network = network.to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._random = np.random.default_rng(seed)  # only chooses frames to measure: never changes what is learned
        self.total_updates = total_updates
        self.updates = 0
        self.learning_rate_factor = 1.0  # set from outside where the batch size changes
        self._parameters = list(self.network.parameters())
        self._optimizer = self._make_optimizer()
        self._actor: Actor | None = None

    def begin(self, source: VectorSource, observations: np.ndarray) -> None:
        """Act in `source` from now on; `observations` (n, *shape) are those of its reset."""
        self._actor = Actor(self.network, source, observations, self.device)

    def step(self, *, num_groups: int = 1, frame_gradients: int = 0, parts: bool = False) -> Update:
        """One rollout and one update.

        Args:
            num_groups: 2 or more measures: the gradient is taken for this many groups of whole environments.
            frame_gradients: when measuring, the number of single frames whose gradients are taken as well.
            parts: when measuring, whether each term of the loss is measured by itself as well.

        Raises:
            RuntimeError: `begin` was not called.
        """
        if self._actor is None:
            raise RuntimeError("the agent has no environments yet: call begin(source, observations) first")
        rollout = self._actor.roll_out(self.config.rollout_steps, self.config.discount, self.generator)
        norms = self._part_norms(rollout, num_groups, frame_gradients) if num_groups > 1 else None
        return self._learn(self._actor.tape, rollout, norms, measure_parts=parts)

    def _learn(
        self, tape: Tape, rollout: Rollout, norms: PartNorms | None = None, *, measure_parts: bool = False
    ) -> Update:
        """One update from a rollout that is still on the tape; the groups' norms are of the unclipped gradient."""
        logits, values = tape.replay(norms)
        loss, losses = self._loss(logits, values, rollout)
        parts = self._measured_parts(losses, rollout, norms) if norms and measure_parts else {}
        self._optimizer.zero_grad()
        loss.backward()
        gradient = [p.grad for p in self._parameters if p.grad is not None]
        groups = self._gradient_groups(rollout, norms, gradient) if norms else None
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self.config.max_grad_norm)
        learning_rate = self._learning_rate()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.updates += 1
        return Update(
            frames=rollout.frames,
            policy_loss=losses[0].detach(),
            value_loss=losses[1].detach(),
            entropy=losses[2].detach(),
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            episode_scores=rollout.episode_scores,
            episode_frames=rollout.episode_frames,
            groups=groups,
            parts=parts,
        )

    def _loss(self, logits: Tensor, values: Tensor, rollout: Rollout) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Mean over valid frames of -log pi(a) A + value_coefficient (R - V)^2 - entropy_coefficient H.

        Also policy loss, value loss and entropy, as they are before the coefficients.
        """
        actions, returns, valid = rollout.actions.flatten(), rollout.returns.flatten(), rollout.valid.flatten()
        weights = valid / max(rollout.frames, 1)
        log_probs = log_softmax(logits, dim=-1)
        chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        policy_loss = -(weights * (returns - values).detach() * chosen).sum()
        value_loss = (weights * (returns - values) ** 2).sum()
        entropy = -(weights * (log_probs.exp() * log_probs).sum(-1)).sum()
        loss = policy_loss + self.config.value_coefficient * value_loss - self.config.entropy_coefficient * entropy
        return loss, (policy_loss, value_loss, entropy)

    def _measured_parts(
        self, losses: Sequence[Tensor], rollout: Rollout, norms: PartNorms
    ) -> dict[str, GradientGroups]:
        """Gradients of the loss's terms, one backward pass each through the graph of the update."""
        coefficients = (1.0, self.config.value_coefficient, -self.config.entropy_coefficient)
        parts = {}
        for name, coefficient, loss in zip(PARTS, coefficients, losses, strict=True):
            gradient = torch.autograd.grad(
                coefficient * loss, self._parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            parts[name] = self._gradient_groups(rollout, norms, gradient)
            norms.reset()
        return parts

    def _part_norms(self, rollout: Rollout, num_groups: int, frame_gradients: int) -> PartNorms:
        """Groups of whole environments, and single frames drawn at random; rows are environment by environment."""
        num_envs, steps = rollout.valid.shape
        groups = whole_environments(num_envs, steps, num_groups)
        (valid,) = rollout.valid.flatten().cpu().numpy().nonzero()
        rows = self._random.choice(valid, size=min(frame_gradients, len(valid))).tolist()
        return PartNorms(groups, rows, self.device)

    def _gradient_groups(self, rollout: Rollout, norms: PartNorms, gradient: Sequence[Tensor]) -> GradientGroups:
        """From sums over rows that each count 1 / frames to means over a part's own frames."""
        sizes = torch.stack([rollout.valid.flatten()[group].sum() for group in norms.groups]).double()
        batch_sq_norm = nn.utils.get_total_norm(gradient) ** 2
        frames = rollout.frames
        return GradientGroups(
            sq_norms=(norms.group_sq_norms * (frames / sizes.clamp(min=1)) ** 2).cpu().numpy(),
            sizes=sizes.cpu().numpy(),
            batch_sq_norm=float(batch_sq_norm),
            frame_sq_norms=(norms.row_sq_norms * frames**2).cpu().numpy(),
        )

    def _learning_rate(self) -> float:
        rate = self.config.learning_rate * self.learning_rate_factor
        if self.config.learning_rate_schedule == "constant":
            return rate
        return rate * max(0.0, 1 - self.updates / self.total_updates)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        if c.rmsprop_epsilon_inside_root:
            return RMSpropInsideRoot(self._parameters, c.learning_rate, c.rmsprop_decay, c.rmsprop_epsilon)
        return torch.optim.RMSprop(self._parameters, c.learning_rate, alpha=c.rmsprop_decay, eps=c.rmsprop_epsilon)

    def state_dict(self) -> dict[str, Any]:
        """Everything a later process needs to go on, except the environments, which cannot be saved."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        generator = state["generator"].cpu()
        if generator.shape == self.generator.get_state().shape:
            self.generator.set_state(generator)
        else:  # saved on another kind of device, whose random numbers cannot be continued here
            self.generator.manual_seed(self.updates)
