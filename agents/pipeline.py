"""Acting in one half of the environments while the other half is emulated.

The emulators of both halves run on threads of their own. While one half steps, the network acts for the other: with a
GPU and many cores neither waits long for the other. Pixels go to the device once, as bytes, through pinned memory; what
is waited for is each half's actions, which the emulators need.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rl_scaling.agents.networks import ActorCritic
from rl_scaling.agents.rollout import Actor, Rollout, gumbel_max
from rl_scaling.envs import AlternatingVector, Transition, VectorSource, join_transitions

HALVES = (0, 1)


@dataclass(frozen=True)
class _Passes:
    """Where the passes of one rollout leave their results: (steps, n, ...), written anew in every rollout."""

    exponential: Tensor
    actions: Tensor
    logits: Tensor
    values: Tensor

    @classmethod
    def of(cls, steps: int, num_envs: int, num_actions: int, device: torch.device) -> _Passes:
        by_action = torch.zeros(steps, num_envs, num_actions, device=device)
        values = torch.zeros(steps, num_envs, device=device)
        return cls(by_action.clone(), torch.zeros_like(values, dtype=torch.int64), by_action, values)


class PipelinedActor(Actor):
    """Gives the rollouts that `Actor` gives in the same source with the same random numbers, up to rounding.

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
    ):
        super().__init__(network, source, observations, device, keep_layers=keep_layers)
        self._current = self._current.clone()  # stays where it is: graphs read it there
        self._parts = source.halves
        pinned = device.type == "cuda"
        halves = [self._current[part] for part in self._parts]
        self._pixels = [torch.empty(h.shape, dtype=h.dtype, pin_memory=pinned) for h in halves]
        self._actions = [torch.empty(len(h), dtype=torch.int64, pin_memory=pinned) for h in halves]
        self._passes: _Passes | None = None
        self._settings: tuple[int, torch.dtype | None] | None = None
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._rollouts = 0
        self.capture_graphs = pinned

    def roll_out(self, steps: int, generator: torch.Generator) -> Rollout:
        """Act for `steps` steps in every environment."""
        passes = self._prepare(steps)
        for exponential in passes.exponential:  # step by step, as an `Actor` draws them
            exponential.exponential_(generator=generator)
        by_half: tuple[list[Transition], list[Transition]] = [], []
        with self.tape.recording(steps, self.source.num_envs):
            for step in range(steps):
                for half in HALVES:
                    if step > 0:
                        by_half[half].append(self._receive(half))
                    self._act(passes, half, step)
                    self.source.send(half, self._read_actions(passes, half, step))
            for half in HALVES:
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
            self._passes = _Passes.of(steps, self.source.num_envs, self.source.num_actions, self.device)
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
        logits, values = self.tape.act(self._current[part], step=step, envs=part)
        passes.logits[step, part] = logits
        passes.values[step, part] = values
        passes.actions[step, part] = gumbel_max(logits, passes.exponential[step, part])

    def _read_actions(self, passes: _Passes, half: int, step: int) -> np.ndarray:
        """(n/2,) the one thing that the host waits for: with it, all that the device was given before is done."""
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
        self._current[self._parts[half]].copy_(pixels, non_blocking=True)
        # Joining both halves' pixels for nobody would cost time in which no emulator runs.
        return dataclasses.replace(transition, observations=transition.observations[:, :0])


def _captured(work: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """The work as a CUDA graph; it is not done yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph


def make_actor(
    network: ActorCritic,
    source: VectorSource,
    observations: np.ndarray,
    device: torch.device,
    *,
    keep_layers: bool = True,
    capture_graphs: bool = True,
) -> Actor:
    """An actor that overlaps acting and emulation where the source can be stepped in halves."""
    if not isinstance(source, AlternatingVector):
        return Actor(network, source, observations, device, keep_layers=keep_layers)
    actor = PipelinedActor(network, source, observations, device, keep_layers=keep_layers)
    actor.capture_graphs = capture_graphs and device.type == "cuda"
    return actor
