"""Gradients at weights that are kept: an agent plays on and learns nothing.

A gradient of some rows is taken through the network's outputs for those rows alone. What the loss makes of an output is
taken once, over the whole rollout, so that whatever an algorithm computes over all of it (returns, normalised
advantages) is what it would be in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rl_scaling.agents.agent import Agent
from rl_scaling.agents.rollout import Actor, Rollout
from rl_scaling.envs import VectorSource
from rl_scaling.noise.clusters import cluster_slices


class PartGradients(NamedTuple):
    """Gradients of one rollout, apart by the terms of the loss.

    Attributes:
        means: (3, k, P) mean gradients of k groups of whole environments, of the terms as they are weighted in the loss
            (`PARTS`): their sum is the whole gradient. P counts the trained weights.
        sizes: (k,) valid frames in each group.
        losses: (3,) the terms themselves.
    """

    means: Tensor
    sizes: np.ndarray
    losses: np.ndarray


class FrozenGradients:
    """Plays with an agent's network and takes gradients, without a step of the optimiser.

    Random numbers are of its own, and so are the environments: what the agent draws and does is the same as without.

    Args:
        agent: whose network and loss are looked at; it may be training elsewhere meanwhile.
        source: environments that nobody else acts in.
        observations: (n, *shape) of their reset.
        num_groups: groups of whole environments; no more than there are environments are made.
        seed: of the actions, and of what is drawn to be looked at.

    Attributes:
        groups: rows of each group.
        random: draws what is looked at.

    Raises:
        ConfigError: the algorithm does not say the terms of its loss (at the first gradient).
    """

    def __init__(
        self, agent: Agent[Any], source: VectorSource, observations: np.ndarray, *, num_groups: int, seed: int
    ) -> None:
        self.agent, self.network = agent, agent.network
        self._actor = Actor(agent.network, source, observations, agent.device, keep_layers=False)
        self._generator = torch.Generator(agent.device).manual_seed(seed)
        self.random = np.random.default_rng(seed)
        self._weights = [p for p in agent.network.parameters() if p.requires_grad]
        steps = agent.config.rollout_steps
        self.groups = cluster_slices(np.arange(source.num_envs + 1) * steps, num_groups)

    def roll_out(self) -> Rollout:
        """Play as many steps as the algorithm does for an update."""
        return self._actor.roll_out(self.agent.config.rollout_steps, self._generator)

    def gradients_of_groups(self, rollout: Rollout) -> PartGradients:
        """Mean gradients of the groups; of a group without valid frames they are 0."""
        terms, losses = self._output_gradients(rollout)
        sizes = self._sizes(rollout)
        means = [
            self._through_network(rollout, rows, terms, rollout.frames / max(float(size), 1.0))
            for rows, size in zip(self.groups, sizes, strict=True)
        ]
        return PartGradients(torch.stack(means, dim=1), sizes, losses)

    def frame_sq_norms(self, rollout: Rollout, count: int) -> np.ndarray:
        """(m,) squared norms of the gradients of single valid frames drawn at random, m at most `count`."""
        terms, _ = self._output_gradients(rollout)
        whole = [tuple(torch.stack(outputs).sum(dim=0) for outputs in zip(*terms, strict=True))]
        (valid,) = rollout.valid.flatten().cpu().numpy().nonzero()
        rows = self.random.choice(valid, size=min(count, len(valid)), replace=False)
        taken = [self._through_network(rollout, slice(r, r + 1), whole, rollout.frames) for r in rows.tolist()]
        return np.array([float((gradient.double() ** 2).sum()) for gradient in taken])

    def curvatures(
        self, rollout: Rollout, groups: Sequence[int], pairs: Sequence[tuple[Tensor, Tensor]]
    ) -> list[float]:
        """Left^T H right for pairs of (P,) vectors, H the Hessian of the mean loss over the frames of some groups.

        By double backward passes, one group at a time; the loss is the algorithm's own, whose second derivative is that
        of the surrogate: advantages and returns are data, and so is how often a state is visited.
        """
        sizes, loss_terms = self._sizes(rollout), self.agent.loss_terms(rollout)
        frames = max(float(sizes[list(groups)].sum()), 1.0)
        found = np.zeros(len(pairs))
        for number in groups:
            rows = self.groups[number]
            mixed = [
                torch.cat([played[: rows.start], output, played[rows.stop :]])
                for played, output in zip(_outputs(rollout), self.network(rollout.observations[rows]), strict=True)
            ]
            policy, value, entropy = loss_terms(*mixed)
            loss = (policy + value + entropy) * (rollout.frames / frames)
            gradient = torch.autograd.grad(
                loss, self._weights, create_graph=True, allow_unused=True, materialize_grads=True
            )
            flat = _flat(gradient)
            for place, (left, right) in enumerate(pairs):
                product = torch.autograd.grad(
                    flat @ right, self._weights, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                found[place] += float(_flat(product).double() @ left.double())
        return found.tolist()

    def _sizes(self, rollout: Rollout) -> np.ndarray:
        valid = rollout.valid.flatten().cpu().numpy()
        return np.array([valid[rows].sum() for rows in self.groups], dtype=np.float64)

    def _output_gradients(self, rollout: Rollout) -> tuple[list[tuple[Tensor, ...]], np.ndarray]:
        """What each term of the loss is differentiated by the network's outputs, for every row; and the terms."""
        outputs = [output.clone().requires_grad_() for output in _outputs(rollout)]
        losses = self.agent.loss_terms(rollout)(*outputs)
        terms = [
            torch.autograd.grad(loss, outputs, retain_graph=True, allow_unused=True, materialize_grads=True)
            for loss in losses
        ]
        return terms, torch.stack(list(losses)).detach().cpu().numpy().astype(np.float64)

    def _through_network(
        self, rollout: Rollout, rows: slice, terms: Sequence[tuple[Tensor, ...]], scale: float
    ) -> Tensor:
        """(terms, P) `scale` times the gradient of the rows' share in each term."""
        outputs = self.network(rollout.observations[rows])
        found = []
        for term in terms:
            gradient = torch.autograd.grad(
                outputs,
                self._weights,
                [output[rows] * scale for output in term],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            found.append(_flat(gradient))
        return torch.stack(found)


def _outputs(rollout: Rollout) -> tuple[Tensor, Tensor]:
    """What the network gave while it acted: (rows, num_actions) and (rows,), environment by environment."""
    return rollout.logits.flatten(0, 1), rollout.values.flatten()


def _flat(gradient: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in gradient])
