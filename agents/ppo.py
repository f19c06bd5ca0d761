"""Proximal policy optimisation: act, then go over the rollout several times in minibatches (Schulman et al. 2017).

As Stable-Baselines3's zoo and CleanRL run it on Atari, with generalised advantages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rl_scaling.agents.agent import Agent, GradientGroups, Losses, Update
from rl_scaling.agents.config import PPOConfig
from rl_scaling.agents.optimizers import Adam
from rl_scaling.agents.replay import Tape
from rl_scaling.agents.rollout import Played, Rollout, generalized_advantages
from rl_scaling.noise.clusters import cluster_slices
from rl_scaling.noise.torch.group_gradients import GroupSqNorms
from rl_scaling.records import PARTS

if TYPE_CHECKING:
    from rl_scaling.agents.stack import Measure, Stack


@dataclass(frozen=True)
class Frames:
    """Frames with what was done about them and what came of it; tensors (m, ...), or (agents, m, ...) of several.

    Attributes:
        log_probs, values: of the policy that acted.
        returns: what the values learn.
        valid: False for frames that count in no mean.
        normalised: whether the advantages are normalised already.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    valid: Tensor
    normalised: bool = False

    @classmethod
    def of(cls, rollout: Rollout, discount: float, gae_lambda: float) -> Frames:
        """All frames of a rollout, environment by environment."""
        advantages = generalized_advantages(*rollout.rewards_and_values, discount, gae_lambda)
        return cls(
            observations=rollout.observations.view(*rollout.valid.shape[:-2], -1, *rollout.observations.shape[1:]),
            actions=rollout.actions.flatten(rollout.valid.dim() - 2, rollout.valid.dim() - 1),
            log_probs=rollout.log_probs.flatten(-2),
            values=rollout.values.flatten(-2),
            advantages=advantages.flatten(-2),
            returns=(advantages + rollout.values).flatten(-2),
            valid=rollout.valid.flatten(-2),
        )

    def __getitem__(self, rows: Tensor | tuple[Tensor, Tensor]) -> Frames:
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **{name: value[rows] for name, value in tensors.items()})

    def mean(self, quantity: Tensor) -> Tensor:
        """Over the frames that count; 0 where there are none."""
        return (self.valid * quantity).sum(-1) / self.valid.sum(-1).clamp(min=1)

    def normalised_advantages(self) -> Tensor:
        """With mean 0 and standard deviation 1 over the frames that count; of one alone as they are."""
        if self.normalised:
            return self.advantages
        count = self.valid.sum(-1, keepdim=True)
        centred = self.advantages - self.mean(self.advantages)[..., None]
        variance = self.mean(centred**2)[..., None] * count / (count - 1).clamp(min=1)
        return torch.where(count > 1, centred / (variance.sqrt() + 1e-8), self.advantages)


class Learned(NamedTuple):
    """What one update did: scalars in the order of `_STATISTICS`, and what was measured."""

    statistics: Tensor
    groups: GradientGroups | None
    parts: dict[str, GradientGroups]


_STATISTICS = ("policy_loss", "value_loss", "entropy", "clip_fraction", "approx_kl", "grad_norm")


class PPO(Agent[PPOConfig]):
    """`epochs` passes over every rollout in minibatches; arguments as `Agent`.

    The noise scale is that of the batch. Where the batch is a minibatch, the gradients of a minibatch are measured as
    it is learned from. Where it is the rollout (`PPOConfig.keeps_minibatch`), the gradient over the whole rollout is,
    at the weights that acted: the direction in which its outer step sets out.
    """

    keeps_layers = False  # the weights move away from those that acted

    def step(self, *, num_groups: int = 1, frame_gradients: int = 0, parts: bool = False) -> Update:
        """One rollout and the updates from it; see `Agent.step`.

        Two updates are measured, drawn at random: one of the first epoch and one of the later ones, if there are any;
        the loss's terms in the first alone. An outer step is measured by the rollout, and nothing in it apart.
        """
        c = self.config
        rollout, begun = self._roll_out(), self.updates
        frames = self._frames(rollout)
        learning_rate = self._learning_rate()
        clip_range = self._clip_range()
        first, later, whole = -1, -1, {}
        if num_groups > 1 and c.keeps_minibatch:
            whole = self._rollout_groups(frames, rollout.valid.shape[0], num_groups, frame_gradients, parts=parts)
        elif num_groups > 1:
            first, later = self._updates_to_measure()
        done: list[Learned] = []
        for number, rows in enumerate(self._minibatches(*rollout.valid.shape)):
            minibatch, norms = frames[rows], None
            if number in (first, later):
                norms = self._group_sq_norms(minibatch.valid, rows, num_groups, frame_gradients)
            done.append(
                self._learn(minibatch, learning_rate, clip_range, norms, measure_parts=parts and number == first)
            )
        self.updates = begun + c.updates_per_rollout  # of which an outer step is one
        told = self._told(rollout, done, learning_rate)
        return replace(told, groups=whole.pop(None), parts=whole) if whole else told

    def _frames(self, rollout: Rollout) -> Frames:
        """The frames to learn from."""
        return Frames.of(rollout, self.config.discount, self.config.gae_lambda)

    @classmethod
    def step_together(cls, stack: Stack[PPO], measure: Sequence[Measure]) -> list[Update]:
        """One rollout of each agent and the updates from it; see `Agent.step_together`."""
        agents, c = stack.agents, stack.agents[0].config
        rollout, played = stack.roll_out()
        frames = Frames.of(rollout, c.discount, c.gae_lambda)
        rates = [agent._learning_rate() for agent in agents]
        # (agents, 1) in place of the one number: agents that are at different updates anneal theirs differently.
        ranges: Any = torch.tensor([agent._clip_range() for agent in agents])[:, None]
        chosen = [a._updates_to_measure() if asked else (-1, -1) for a, asked in zip(agents, measure, strict=True)]
        dealt = [agent._minibatches(*rollout.valid.shape[1:]) for agent in agents]
        one_each = torch.arange(len(agents))[:, None]
        done: list[list[Learned]] = [[] for _ in agents]
        for number, rows in enumerate(zip(*dealt, strict=True)):
            minibatch = frames[one_each, torch.stack(rows)]
            asked = [
                {**of_all, "parts": of_all["parts"] and number == first} if number in (first, later) else {}
                for of_all, (first, later) in zip(measure, chosen, strict=True)
            ]
            of_agents = [
                a._group_sq_norms(minibatch.valid[k], rows[k], asked[k]["num_groups"], asked[k]["frame_gradients"])
                if asked[k]
                else None
                for k, a in enumerate(agents)
            ]
            norms = stack.joined(of_agents, rows=len(rows[0]))
            logits, values = stack.outputs(minibatch.observations, norms)
            losses, moved = agents[0]._losses(logits, values, minibatch, ranges)
            descents = stack.descend(agents[0]._weighted(losses), minibatch.valid, rates, norms, asked)
            grad_norms = torch.stack([descent.grad_norm for descent in descents])
            statistics = torch.stack([*losses, *moved, grad_norms], 1).detach().unbind()
            for learned, own, descent in zip(done, statistics, descents, strict=True):
                learned.append(Learned(own, descent.groups, descent.parts))
        return [agents[k]._told(played[k], done[k], rates[k]) for k in range(len(agents))]

    def loss_terms(self, rollout: Rollout) -> Callable[[Tensor, Tensor], Losses]:
        """Those of the first epoch, before anything is learned; advantages are normalised over the whole rollout."""
        c = self.config
        frames = Frames.of(rollout, c.discount, c.gae_lambda)
        clip_range = self._annealed(c.clip_range, c.clip_range_schedule)
        return lambda logits, values: self._weighted(self._losses(logits, values, frames, clip_range)[0])

    def _learn(
        self,
        minibatch: Frames,
        learning_rate: float,
        clip_range: float,
        norms: GroupSqNorms | None = None,
        *,
        measure_parts: bool = False,
    ) -> Learned:
        """One update."""
        logits, values = self._outputs(minibatch.observations, norms)
        losses, moved = self._losses(logits, values, minibatch, clip_range)
        grad_norm, groups, parts = self._descend(
            losses, minibatch.valid, learning_rate, norms, measure_parts=measure_parts
        )
        return Learned(torch.stack([*losses, *moved, grad_norm]).detach(), groups, parts)

    def _losses(
        self, logits: Tensor, values: Tensor, frames: Frames, clip_range: float
    ) -> tuple[Losses, tuple[Tensor, Tensor]]:
        """Policy loss (see `_objective`), value loss mean (R - V)^2 and entropy, before coefficients.

        Also, of how far the policy has moved from the one that it is kept near: the share of frames whose ratio r is
        clipped, and mean (r - 1 - log r), an estimate of the Kullback-Leibler divergence.
        """
        c = self.config
        log_probs, entropies = self.network.actions.judge(logits, frames.actions)
        objective, log_ratios = self._objective(log_probs, frames, clip_range)
        ratios = log_ratios.exp()
        if c.value_clip_range:
            moved = (values - frames.values).clamp(-c.value_clip_range, c.value_clip_range)
            values = frames.values + moved
        policy_loss = -frames.mean(objective)
        value_loss = frames.mean((frames.returns - values) ** 2)
        entropy = frames.mean(entropies)
        with torch.no_grad():
            clip_fraction = frames.mean(((ratios - 1).abs() > clip_range).float())
            approx_kl = frames.mean(ratios - 1 - log_ratios)
        return (policy_loss, value_loss, entropy), (clip_fraction, approx_kl)

    def _objective(self, log_probs: Tensor, frames: Frames, clip_range: float) -> tuple[Tensor, Tensor]:
        """(m,) min(r A, clip(r) A) of every frame (eq. 7), and log r of the new to the old policy.

        Args:
            log_probs: (m,) of the actions that were chosen, by the policy that learns.
        """
        log_ratios = log_probs - frames.log_probs
        ratios, advantages = log_ratios.exp(), self._advantages(frames)
        clipped = ratios.clamp(1 - clip_range, 1 + clip_range)
        return torch.min(ratios * advantages, clipped * advantages), log_ratios

    def _advantages(self, frames: Frames) -> Tensor:
        """(m,) what the objective weighs the frames of a minibatch by."""
        return frames.normalised_advantages() if self.config.normalize_advantages else frames.advantages

    def _loss_of(self, rollout: Rollout) -> Callable[[Tensor, Tensor], Tensor]:
        frames = Frames.of(rollout, self.config.discount, self.config.gae_lambda)
        return lambda logits, values: self._total(self._losses(logits, values, frames, self.config.clip_range)[0])

    def _outputs(self, observations: Tensor, norms: GroupSqNorms | None) -> tuple[Tensor, Tensor]:
        """Logits and values, differentiable; `norms` collects norms of parts of the gradient when it is taken."""
        if norms is None:
            return self.network(observations)
        tape = Tape(self.network)
        with tape.recording(steps=1):
            tape.act(observations)
        return tape.replay(norms)

    def _minibatches(self, num_envs: int, steps: int) -> Iterator[Tensor]:
        """Rows of every minibatch of every epoch, environment by environment within each."""
        c = self.config
        minibatches = c.minibatches_of(num_envs)
        for _ in range(c.epochs):
            if c.minibatch_of == "frames":
                shuffled = self._shuffled(num_envs * steps, minibatches)
            else:
                in_time = torch.arange(steps, device=self.device)
                shuffled = (self._shuffled(num_envs, minibatches)[..., None] * steps + in_time).flatten(1)
            yield from shuffled

    def _shuffled(self, count: int, minibatches: int) -> Tensor:
        """(minibatches, count / minibatches): numbers up to `count` dealt at random, in order within each."""
        dealt = torch.randperm(count, generator=self.generator, device=self.device)
        return dealt.view(minibatches, -1).sort(dim=1).values

    def _clip_range(self) -> float:
        """That of the next rollout."""
        return self._annealed(self.config.clip_range, self.config.clip_range_schedule)

    def _updates_to_measure(self) -> tuple[int, int]:
        """Numbers of one update of the first epoch and of a later one, -1 if there is none, within a rollout's."""
        c = self.config
        first = int(self._random.integers(c.minibatches))
        later = self._random.integers(c.minibatches, c.updates_per_rollout) if c.epochs > 1 else -1
        return first, int(later)

    def _group_sq_norms(
        self, valid: Tensor, rows: Tensor, num_groups: int, frame_gradients: int
    ) -> GroupSqNorms | None:
        """Groups of whole environments in a minibatch, and single frames; None where one environment is all there is.

        Args:
            valid: (m,) of the minibatch's frames.
            rows: (m,) their places in the rollout, environment by environment.
            num_groups: groups to make.
            frame_gradients: single frames to draw.
        """
        _, starts = np.unique(rows.cpu().numpy() // self.config.rollout_steps, return_index=True)
        if len(starts) < 2:
            return None
        groups = cluster_slices(np.append(starts, len(rows)), num_groups)
        return GroupSqNorms(groups, self._frames_to_measure(valid, frame_gradients), device=self.device)

    def _rollout_groups(
        self, frames: Frames, num_envs: int, num_groups: int, frame_gradients: int, *, parts: bool
    ) -> dict[str | None, GradientGroups]:
        """Gradients over a whole rollout at the weights that acted, by groups of whole environments.

        Nothing is learned. They are taken in passes of a minibatch, whose sums are those of one pass: a rollout may not
        fit in memory. Advantages are normalised over the rollout.

        Returns:
            Of the loss under None, and under the names of its terms (`PARTS`) if they are asked for.
        """
        frames = replace(frames, advantages=self._advantages(frames), normalised=True)
        groups = cluster_slices(np.arange(num_envs + 1) * self.config.rollout_steps, num_groups)
        singles = self._frames_to_measure(frames.valid, frame_gradients)
        of_groups = [self._gradient_sums(frames, torch.arange(len(frames.valid))[rows], parts) for rows in groups]
        of_singles = [self._gradient_sums(frames, torch.tensor([row]), parts) for row in singles]
        sizes = torch.stack([frames.valid[rows].sum() for rows in groups]).double()
        found: dict[str | None, GradientGroups] = {}
        for name in of_groups[0]:
            sums = torch.stack([sums[name] for sums in of_groups]).double()
            alone = [float((sums[name].double() ** 2).sum()) for sums in of_singles]
            found[name] = GradientGroups(
                sq_norms=((sums / sizes.clamp(min=1)[:, None]) ** 2).sum(1).cpu().numpy(),
                sizes=sizes.cpu().numpy(),
                batch_sq_norm=float(((sums.sum(0) / sizes.sum().clamp(min=1)) ** 2).sum()),
                frame_sq_norms=np.array(alone),
            )
        return found

    def _gradient_sums(self, frames: Frames, rows: Tensor, parts: bool) -> dict[str | None, Tensor]:
        """The gradient of the loss summed over some frames, flat; under names those of its terms, if asked for."""
        names: tuple[str | None, ...] = PARTS if parts else (None,)
        sums: dict[str | None, Tensor] = dict.fromkeys(names, torch.zeros((), device=self.device))
        for chunk in rows.to(self.device).split(self.config.minibatch_frames):
            few = frames[chunk]
            logits, values = self.network(few.observations)
            losses, _ = self._losses(logits, values, few, self.config.clip_range)
            terms = self._weighted(losses) if parts else (self._total(losses),)
            for name, term in zip(names, terms, strict=True):
                gradient = torch.autograd.grad(
                    few.valid.sum() * term,
                    self._parameters,
                    retain_graph=name != names[-1],
                    allow_unused=True,
                    materialize_grads=True,
                )
                sums[name] = sums[name] + torch.cat([part.flatten() for part in gradient])
        return sums | ({None: torch.stack([sums[name] for name in PARTS]).sum(0)} if parts else {})

    def _told(self, rollout: Played, done: Sequence[Learned], learning_rate: float) -> Update:
        """The updates from one rollout taken together."""
        of_first, of_later = (
            next((learned for learned in epoch if learned.groups is not None), None)
            for epoch in (done[: self.config.minibatches], done[self.config.minibatches :])
        )
        means = torch.stack([learned.statistics for learned in done]).mean(dim=0)
        return Update(
            **dict(zip(_STATISTICS, means, strict=True)),
            frames=rollout.frames,
            updates=self.config.updates_per_rollout,
            epochs=self.config.frame_uses,
            learning_rate=learning_rate,
            episode_scores=rollout.episode_scores,
            episode_frames=rollout.episode_frames,
            groups=of_first.groups if of_first else None,
            parts=of_first.parts if of_first else {},
            reuse=of_later.groups if of_later else None,
        )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        return Adam(self._parameters, self.config.learning_rate, self.config.adam_epsilon)
