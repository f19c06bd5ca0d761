"""Acting for a few steps in every environment: what comes of it, and its returns.

Where a source can be stepped in halves, the network acts for one half while the other is emulated: with a GPU and many
cores neither waits long for the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rl_scaling.agents.actions import Actions
from rl_scaling.agents.networks import ActorCritic
from rl_scaling.agents.replay import Tape
from rl_scaling.envs import AlternatingVector, Transition, VectorSource, join_transitions


@dataclass(frozen=True)
class Played:
    """What was played in a rollout, for the record.

    Attributes:
        frames: valid frames in all.
        episode_scores, episode_frames: raw scores and lengths of the games that ended in this rollout.
    """

    frames: int
    episode_scores: np.ndarray
    episode_frames: np.ndarray


@dataclass(frozen=True)
class Rollout(Played):
    """`steps` steps of n environments; tensors are (n, steps) and on the agent's device.

    Where several agents act side by side (`rl_scaling.agents.stack`) all tensors but the observations have one more
    dimension in front, the agents.

    Attributes:
        observations: (n * steps, *shape) what was acted on, all steps of the first environment, then of the second,
            and so on; the tape's own, so the next rollout overwrites it.
        distribution: what kind of actions these are, and what the logits say of them.
        actions: (n, steps, *shape) what was done.
        logits, values: (n, steps, num_parameters) and (n, steps) what the network gave for them, without gradient.
        last_values: (n,) values of the observations after the rollout.
        valid: False for steps that only reset an environment and must not count.
    """

    observations: Tensor
    distribution: Actions
    actions: Tensor
    logits: Tensor
    values: Tensor
    last_values: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor

    @property
    def log_probs(self) -> Tensor:
        """(n, steps) of the actions that were taken."""
        return self.distribution.judge(self.logits, self.actions)[0]

    @property
    def rewards_and_values(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What returns and advantages are computed from: the first arguments of `n_step_returns`."""
        return self.rewards, self.terminated, self.truncated, self.values, self.last_values

    def of(self, agent: int) -> Rollout:
        """One agent's part of the tensors, where several act side by side; what was played stays that of all."""
        by_agent = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        by_agent["observations"] = self.observations.unflatten(0, (len(self.valid), -1))
        own = {name: value[agent] for name, value in by_agent.items()}
        return dataclasses.replace(self, **own)


def n_step_returns(
    rewards: Tensor, terminated: Tensor, truncated: Tensor, values: Tensor, last_values: Tensor, discount: float
) -> Tensor:
    """Discounted sums of rewards to the end of the rollout, bootstrapped there and at time limits.

    R_t = r_t + discount * (0 if terminated, V(s_{t+1}) if truncated, else R_{t+1}), with R_T = V(s_T)
    (Mnih et al. 2016, algorithm S3).

    Args:
        rewards, terminated, truncated: (..., steps).
        values: (..., steps), V of the observation each step acted on. The step after a truncation acts on the final
            observation of the episode, so its value is the one to bootstrap from.
        last_values: (...), V of the observations after the rollout.

    Returns:
        (..., steps) returns, without gradient.
    """
    following_value = last_values.detach()
    following_return = following_value
    returns = torch.empty_like(rewards)
    for t in range(rewards.shape[-1] - 1, -1, -1):
        following = torch.where(truncated[..., t], following_value, following_return)
        following_return = rewards[..., t] + discount * torch.where(terminated[..., t], 0.0, following)
        following_value = values[..., t].detach()
        returns[..., t] = following_return
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
        (..., steps) advantages, without gradient; with the values added, they are returns for the value function.
    """
    following = torch.cat([values, last_values[..., None]], dim=-1).detach()
    differences = rewards + discount * torch.where(terminated, 0.0, following[..., 1:]) - following[..., :-1]
    carried = discount * trace_decay * ~(terminated | truncated)
    advantages = torch.empty_like(rewards)
    advantage = torch.zeros_like(last_values)
    for t in range(rewards.shape[-1] - 1, -1, -1):
        advantage = differences[..., t] + carried[..., t] * advantage
        advantages[..., t] = advantage
    return advantages


class Actor:
    """A network acting in a source, from where its last rollout ended; what it saw is kept on `tape`.

    With `keep_layers` what the network's layers computed is kept there as well.

    Attributes:
        current: (n, *shape) observations to act on next.
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
        self.current = self._to_device(observations)

    def roll_out(self, steps: int, generator: torch.Generator) -> Rollout:
        """Act for `steps` steps in every environment."""
        with self.network.unchanged():
            return self._roll_out(steps, generator)

    def _roll_out(self, steps: int, generator: torch.Generator) -> Rollout:
        taken, logits, values, transitions = [], [], [], []
        with self.tape.recording(steps):
            for _ in range(steps):
                step_logits, step_values = self.tape.act(self.current)
                actions = self.network.actions.sample(step_logits, generator)
                transitions.append(self.source.step(actions.cpu().numpy()))
                taken.append(actions)
                logits.append(step_logits)
                values.append(step_values)
                self.current = self._to_device(transitions[-1].observations)
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
            distribution=self.network.actions,
            actions=actions,
            logits=logits,
            values=values,
            last_values=self.network(self.current)[1],
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


@dataclass(frozen=True)
class _Passes:
    """Where the passes of one rollout leave their results: (steps, n, ...), written anew in every rollout."""

    noise: Tensor
    actions: Tensor
    logits: Tensor
    values: Tensor

    @classmethod
    def of(cls, steps: int, num_envs: int, actions: Actions, device: torch.device) -> _Passes:
        noise, logits, values = (
            torch.zeros(steps, num_envs, *each, device=device)
            for each in ((actions.num_outputs,), (actions.num_parameters,), ())
        )
        return cls(
            noise, torch.zeros(steps, num_envs, *actions.shape, dtype=actions.dtype, device=device), logits, values
        )


class PipelinedActor(Actor):
    """Gives the rollouts that `Actor` gives in the same source with the same random numbers, up to rounding.

    Pixels go to the device once, as bytes, through pinned memory; what is waited for is each half's actions, which the
    emulators need.

    Attributes:
        capture_graphs: on a CUDA device, capture every pass of the second rollout as a CUDA graph, which later rollouts
            replay: a pass is then started with one call instead of some forty. The first runs as it is, so that
            libraries and buffers are ready.
    """

    source: AlternatingVector

    def __init__(
        self,
        network: ActorCritic,
        source: AlternatingVector,
        observations: np.ndarray,
        device: torch.device,
        *,
        keep_layers: bool = True,
        capture_graphs: bool = True,
    ):
        super().__init__(network, source, observations, device, keep_layers=keep_layers)
        self.current = self.current.clone()  # stays where it is: graphs read it there
        self._parts = source.halves
        pinned = device.type == "cuda"
        halves = [self.current[part] for part in self._parts]
        self._pixels = [torch.empty(h.shape, dtype=h.dtype, pin_memory=pinned) for h in halves]
        chosen = network.actions
        self._actions = [torch.empty(len(h), *chosen.shape, dtype=chosen.dtype, pin_memory=pinned) for h in halves]
        self._passes: _Passes | None = None
        self._settings: tuple[int, torch.dtype | None] | None = None
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._rollouts = 0
        self.capture_graphs = capture_graphs and pinned

    def roll_out(self, steps: int, generator: torch.Generator) -> Rollout:
        """Act for `steps` steps in every environment."""
        # Graphs round the weights whenever they are replayed.
        with nullcontext() if self.capture_graphs else self.network.unchanged():
            return self._roll_out(steps, generator)

    def _roll_out(self, steps: int, generator: torch.Generator) -> Rollout:
        passes = self._prepare(steps)
        for noise in passes.noise:  # step by step, as an `Actor` draws them
            self.network.actions.draw(noise, generator)
        by_half: tuple[list[Transition], list[Transition]] = [], []
        with self.tape.recording(steps, self.source.num_envs):
            for step in range(steps):
                for half in (0, 1):
                    if step > 0:
                        by_half[half].append(self._receive(half))
                    self._act(passes, half, step)
                    self.source.send(half, self._read_actions(passes, half, step))
            for half in (0, 1):
                by_half[half].append(self._receive(half))
        self._rollouts += 1
        acted = (
            result.transpose(0, 1).clone(memory_format=torch.contiguous_format)
            for result in (passes.actions, passes.logits, passes.values)
        )
        return self._assemble(*acted, transitions=[join_transitions(both) for both in zip(*by_half, strict=True)])

    def _prepare(self, steps: int) -> _Passes:
        """Room for the rollout; what was captured is forgotten where it no longer fits."""
        settings = steps, self.network.compute_dtype
        if self._passes is None or settings != self._settings:
            self._passes = _Passes.of(steps, self.source.num_envs, self.network.actions, self.device)
            self._settings = settings
            self._graphs, self._rollouts = {}, 0
        return self._passes

    def _act(self, passes: _Passes, half: int, step: int) -> None:
        if not self.capture_graphs or self._rollouts == 0:
            self._pass(passes, half, step)
            return
        if (half, step) not in self._graphs:
            self._graphs[half, step] = _captured(lambda: self._pass(passes, half, step), self.device)
        self._graphs[half, step].replay()

    def _pass(self, passes: _Passes, half: int, step: int) -> None:
        """From one half's pixels to its actions, on the same memory in every rollout."""
        part = self._parts[half]
        logits, values = self.tape.act(self.current[part], step=step, envs=part)
        passes.logits[step, part] = logits
        passes.values[step, part] = values
        passes.actions[step, part] = self.network.actions.choose(logits, passes.noise[step, part])

    def _read_actions(self, passes: _Passes, half: int, step: int) -> np.ndarray:
        """(n/2, ...) the one thing that the host waits for: with it, all that the device was given before is done."""
        host = self._actions[half].copy_(passes.actions[step, self._parts[half]], non_blocking=True)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return host.numpy().copy()

    def _receive(self, half: int) -> Transition:
        """One half's step, once it is done, without its pixels, which are on their way to the device.

        The pinned memory may be written again: the half's actions have been waited for since it was last read.
        """
        transition = self.source.recv(half)
        pixels = torch.from_numpy(transition.observations)
        if self.device.type == "cuda":
            pixels = self._pixels[half].copy_(pixels)
        self.current[self._parts[half]].copy_(pixels, non_blocking=True)
        # Joining both halves' pixels for nobody would cost time in which no emulator runs.
        return dataclasses.replace(transition, observations=transition.observations[:, :0])


def _captured(work: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """The work as a CUDA graph; it is not done yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph
