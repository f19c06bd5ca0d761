"""Agents side by side: of one algorithm, on environments of one kind, each with its own weights, rate and seed.

For small networks acting and learning take as long as it takes to start their operations. Side by side the agents pass
through one stacked network (`rl_scaling.noise.torch.stacked_layers`) and share what each operation costs to start. All
else is each agent's own, and the agents remain what they are: their parameters are lines of the stacked ones, so that
each can be saved, or taken out and trained by itself, between any two steps. What an agent does is what it would do
alone with the same environments, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from rl_scaling.agents.agent import Agent, Descent, GradientGroups, Losses, Update
from rl_scaling.agents.networks import ActorCritic
from rl_scaling.agents.replay import Tape
from rl_scaling.agents.rollout import Played, Rollout
from rl_scaling.envs import Transition, VectorSource
from rl_scaling.noise.torch.group_gradients import GroupSqNorms, measurable_layers, watching
from rl_scaling.noise.torch.stacked_layers import stacked_model, why_not_stackable
from rl_scaling.records import PARTS

# Arguments of `Agent.step` for one agent; empty where nothing is measured.
Measure = Mapping[str, Any]
AnyAgent = TypeVar("AnyAgent", bound=Agent[Any])


class Stack(Generic[AnyAgent]):
    """Agents that act and learn side by side, on the CPU; their algorithm says how (`Agent.step_together`).

    An agent that diverges turns its own numbers into NaN; the others never notice.

    Args:
        agents: one or more, whose settings agree in all but the learning rate.

    Attributes:
        agents: those that are there, in order.
        network: takes the observations of the first, then those of the second, and so on.

    Raises:
        ValueError: their networks cannot be stacked (`why_not_stackable`), or are on another device.
    """

    def __init__(self, agents: Sequence[AnyAgent]):
        if problem := why_no_stack(agents[0]):
            raise ValueError(problem)
        self.agents = list(agents)
        self._sources: list[VectorSource] = []
        self._current = torch.zeros(0)
        self._pile()

    def _pile(self) -> None:
        self.network: ActorCritic = stacked_model([agent.network for agent in self.agents])
        self._parameters = list(self.network.parameters())
        self._own = [list(agent.network.parameters()) for agent in self.agents]
        self._layers = measurable_layers(self.network)
        self._tape = Tape(self.network, keep_layers=self.agents[0].keeps_layers)

    def begin(self, sources: Sequence[VectorSource], observations: Sequence[np.ndarray]) -> None:
        """Act from now on in a source for each agent; `observations` (n, *shape) are those of their resets."""
        self._sources = list(sources)
        self._current = torch.from_numpy(np.concatenate(observations))

    def keep(self, places: Sequence[int]) -> None:
        """Continue with these agents alone, in this order; the others are free, and keep what they have learned."""
        self._current = self._by_agent(self._current)[list(places)].flatten(0, 1)
        self.agents = [self.agents[place] for place in places]
        self._sources = [self._sources[place] for place in places]
        self._pile()

    def step(self, measure: Sequence[Measure]) -> list[Update]:
        """One rollout of each agent and the updates from it.

        Args:
            measure: for each agent the arguments of `Agent.step`; empty where nothing is measured.
        """
        return type(self.agents[0]).step_together(self, measure)

    def replay(self, norms: GroupSqNorms | None) -> tuple[Tensor, Tensor]:
        """See `Tape.replay`: logits (agents, n * steps, num_actions) and values (agents, n * steps)."""
        logits, values = self._tape.replay(norms)
        return self._by_agent(logits), self._by_agent(values)

    def outputs(self, observations: Tensor, norms: GroupSqNorms | None) -> tuple[Tensor, Tensor]:
        """Logits (agents, m, num_actions) and values (agents, m) for (agents, m, *shape), differentiable.

        Args:
            observations: of each agent.
            norms: as `joined` made them: collects norms of parts of the gradient when it is taken.
        """
        with watching(self._layers, norms):
            logits, values = self.network(observations.flatten(0, 1))
        return self._by_agent(logits), self._by_agent(values)

    def _by_agent(self, rows: Tensor) -> Tensor:
        """(agents * n, ...) to (agents, n, ...)."""
        return rows.unflatten(0, (len(self.agents), -1))

    def roll_out(self) -> tuple[Rollout, list[Played]]:
        """As `Actor.roll_out`, with the agents in front of all dimensions, and what each of them played."""
        steps = self.agents[0].config.rollout_steps
        taken, logits, values, transitions = [], [], [], []
        with self._tape.recording(steps):
            for _ in range(steps):
                step_logits, step_values = self._tape.act(self._current)
                actions = self._sampled(step_logits)
                played = [source.step(own) for source, own in zip(self._sources, actions.numpy(), strict=True)]
                self._current = torch.from_numpy(np.concatenate([t.observations for t in played]))
                taken.append(actions.flatten(0, 1))
                logits.append(step_logits)
                values.append(step_values)
                transitions.append(played)
        acted = (self._by_agent(torch.stack(parts, 1)) for parts in (taken, logits, values))
        return self._assembled(*acted, transitions=transitions)

    def _sampled(self, logits: Tensor) -> Tensor:
        """(agents, n, *shape) actions, each drawn with its agent's own random numbers as `Actions.sample` does."""
        kind = self.network.actions
        noise = torch.empty_like(logits[..., : kind.num_outputs], memory_format=torch.contiguous_format)
        for agent, own in zip(self.agents, self._by_agent(noise).unbind(), strict=True):
            kind.draw(own, agent.generator)
        return self._by_agent(kind.choose(logits, noise))

    @torch.no_grad()
    def _assembled(
        self, actions: Tensor, logits: Tensor, values: Tensor, transitions: list[list[Transition]]
    ) -> tuple[Rollout, list[Played]]:
        rewards, terminated, truncated, valid = (
            torch.from_numpy(np.array([[getattr(t, name) for t in played] for played in transitions]))
            .permute(1, 2, 0)
            .contiguous()
            for name in ("rewards", "terminated", "truncated", "valid")
        )
        frames = valid.sum((1, 2)).tolist()
        scores, lengths = (
            [np.concatenate([getattr(t, name) for t in own]) for own in zip(*transitions, strict=True)]
            for name in ("episode_scores", "episode_frames")
        )
        played = [Played(*own) for own in zip(frames, scores, lengths, strict=True)]
        rollout = Rollout(
            frames=sum(frames),
            episode_scores=np.concatenate(scores),
            episode_frames=np.concatenate(lengths),
            observations=self._tape.observations,
            distribution=self.network.actions,
            actions=actions,
            logits=logits,
            values=values,
            last_values=self._by_agent(self.network(self._current)[1]),
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            valid=valid,
        )
        return rollout, played

    def descend(
        self,
        terms: Losses,
        valid: Tensor,
        rates: Sequence[float],
        norms: GroupSqNorms | None,
        measure: Sequence[Measure],
    ) -> list[Descent]:
        """One step of each agent's optimiser along the clipped gradient of its loss.

        Args:
            terms: of the losses, (agents,) each, as they are weighted in it (`PARTS`).
            valid: (agents, ...) which of the frames they are means over count.
            rates: of the agents.
            norms: as `joined` made them.
            measure: of which agents these are to be told, and of which the loss's terms as well.
        """
        parts: dict[str, list[GradientGroups | None]] = {}
        if norms is not None and any(asked.get("parts") for asked in measure):
            for name, term in zip(PARTS, terms, strict=True):
                gradient = torch.autograd.grad(
                    term.sum(), self._parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                parts[name] = self._groups(valid, norms, gradient, measure)
                norms.reset()
        for parameter in self._parameters:
            parameter.grad = None
        torch.stack(terms).sum().backward()
        gradient = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        groups = [None] * len(self.agents) if norms is None else self._groups(valid, norms, gradient, measure)
        for own, lines in zip(self._own, zip(*(g.unbind() for g in gradient), strict=True), strict=True):
            for parameter, line in zip(own, lines, strict=True):
                parameter.grad = line
        descents = []
        for k, agent in enumerate(self.agents):
            asked = measure[k].get("parts", False)
            found = {name: own for name, of_agents in parts.items() if asked and (own := of_agents[k]) is not None}
            descents.append(Descent(agent.apply_gradient(rates[k]), groups[k], found))
        return descents

    def joined(self, of_agents: Sequence[GroupSqNorms | None], *, rows: int) -> GroupSqNorms | None:
        """What each agent would measure as one, an agent that measures nothing being one group; None: nobody does.

        Args:
            of_agents: the groups and single rows of each.
            rows: that each of them learns from.
        """
        if not any(of_agents):
            return None
        groups, single = [], []
        for k, own in enumerate(of_agents):
            first = k * rows
            slices = [slice(0, rows)] if own is None else own.groups
            groups += [slice(first + group.start, first + group.stop) for group in slices]
            single += [] if own is None else [first + row for row in own.rows]
        return GroupSqNorms(groups, single)

    def _groups(
        self, valid: Tensor, norms: GroupSqNorms, gradient: Sequence[Tensor], measure: Sequence[Measure]
    ) -> list[GradientGroups | None]:
        """Each agent's, where it is asked for and there are two groups or more."""
        flat = valid.flatten()
        sizes = torch.stack([flat[group].sum() for group in norms.groups]).double()
        each = flat.numel() // len(self.agents)
        of_agent = [group.start // each for group in norms.groups]
        of_row = np.array(norms.rows, dtype=int) // each
        found: list[GradientGroups | None] = []
        for k, asked in enumerate(measure):
            mine = torch.tensor([agent == k for agent in of_agent])
            if not asked or int(mine.sum()) < 2:
                found.append(None)
                continue
            own = [part[k] for part in gradient]
            of_rows = norms.row_sq_norms[torch.from_numpy(of_row == k)]
            found.append(GradientGroups.of(norms.group_sq_norms[mine], of_rows, sizes[mine], own))
        return found


def why_no_stack(agent: Agent[Any]) -> str:
    """Why agents like this one have to train alone; empty where they can be stacked."""
    if agent.device.type != "cpu":
        return f"the network is on {agent.device}: agents are stacked on the CPU"
    if type(agent.network) is not ActorCritic or agent.network.compute_dtype is not None:
        return "the network is no plain ActorCritic in its own precision"
    return why_not_stackable(agent.network)
