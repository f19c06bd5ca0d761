"""Acting for a few steps in every environment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rl_scaling.agents.networks import ActorCritic
from rl_scaling.agents.replay import Tape
from rl_scaling.envs import Transition, VectorSource


@dataclass(frozen=True)
class Rollout:
    """`steps` steps of n environments; tensors are (n, steps) and on the agent's device.

    Attributes:
        observations: (n * steps, *shape) what was acted on, all steps of the first environment, then of the second,
            and so on; the tape's own, so the next rollout overwrites it.
        logits, values: (n, steps, num_actions) and (n, steps) what the network gave for them, without gradient.
        last_values: (n,) values of the observations after the rollout.
        frames: valid frames in all.
        valid: False for steps that only reset an environment and must not count.
        episode_scores, episode_frames: raw scores and lengths of the games that ended in this rollout.
    """

    observations: Tensor
    actions: Tensor
    logits: Tensor
    values: Tensor
    last_values: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    frames: int
    valid: Tensor
    episode_scores: np.ndarray
    episode_frames: np.ndarray

    @property
    def rewards_and_values(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What returns and advantages are computed from: the first arguments of `rl_scaling.agents.returns`."""
        return self.rewards, self.terminated, self.truncated, self.values, self.last_values


def sample_actions(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One action per row of (n, num_actions) logits, by the Gumbel-max trick.

    Unlike torch.multinomial this neither waits for the device nor fails when a run has diverged to NaN.
    """
    return gumbel_max(logits, torch.empty_like(logits).exponential_(generator=generator))


def gumbel_max(logits: Tensor, exponential: Tensor) -> Tensor:
    """The action of each row that (n, num_actions) exponentially distributed numbers choose."""
    return (logits - exponential.log()).argmax(dim=-1)


class Actor:
    """A network acting in a source, from where its last rollout ended; what it saw is kept on `tape`.

    With `keep_layers` what the network's layers computed is kept there as well.
    """

    def __init__(
        self,
        network: ActorCritic,
        source: VectorSource,
        observations: np.ndarray,
        device: torch.device,
        *,
        keep_layers: bool = True,
    ):
        self.network = network
        self.source = source
        self.device = device
        self.tape = Tape(network, keep_layers=keep_layers)
        self._current = self._to_device(observations)

    def roll_out(self, steps: int, generator: torch.Generator) -> Rollout:
        """Act for `steps` steps in every environment."""
        taken, logits, values, transitions = [], [], [], []
        with self.tape.recording(steps):
            for _ in range(steps):
                step_logits, step_values = self.tape.act(self._current)
                actions = sample_actions(step_logits, generator)
                transitions.append(self.source.step(actions.cpu().numpy()))
                taken.append(actions)
                logits.append(step_logits)
                values.append(step_values)
                self._current = self._to_device(transitions[-1].observations)
        acted = (torch.stack(parts, 1) for parts in (taken, logits, values))
        return self._assemble(*acted, transitions=transitions)

    @torch.no_grad()
    def _assemble(self, actions: Tensor, logits: Tensor, values: Tensor, transitions: list[Transition]) -> Rollout:
        rewards, terminated, truncated, valid = (
            self._to_device(np.stack([getattr(t, name) for t in transitions], axis=1))
            for name in ("rewards", "terminated", "truncated", "valid")
        )
        return Rollout(
            observations=self.tape.observations,
            actions=actions,
            logits=logits,
            values=values,
            last_values=self.network(self._current)[1],
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            frames=int(sum(t.valid.sum() for t in transitions)),
            valid=valid,
            episode_scores=np.concatenate([t.episode_scores for t in transitions]),
            episode_frames=np.concatenate([t.episode_frames for t in transitions]),
        )

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)
