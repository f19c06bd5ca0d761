"""The loop over updates, for one run or many stacked: what each run says, and when it leaves."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Checkpoint, Control, Ended, Event
from rl_scaling.domains.supervised.config import SupervisedConfig
from rl_scaling.domains.supervised.data.dataset import Dataset
from rl_scaling.domains.supervised.noise import BatchSize, run_noise
from rl_scaling.domains.supervised.recipe import LearningRate
from rl_scaling.records import LossRecord

# Records of a run: enough to tell its updates to a target to within a few percent.
ROWS = 100


class Evaluation(NamedTuple):
    """Of one run, with averaged weights if it has them, without dropout, augmentation or smoothing of labels.

    Attributes:
        training_loss: over `Dataset.training_sample`.
        validation_loss, validation_accuracy: over the whole validation split; NaN for an autoencoder's accuracy.
    """

    training_loss: float
    validation_loss: float
    validation_accuracy: float


class Run:
    """What a run has of its own in either program: its rate, batch size, noise scale and totals."""

    def __init__(self, number: int, config: SupervisedConfig):
        self.number, self.config = number, config
        self.rate, self.batch, self.noise = LearningRate(config), BatchSize(config), run_noise(config)
        self.wall_seconds, self.records, self.fresh = 0.0, 0, True

    def state(self) -> dict[str, Any]:
        """As plain data, taken right after a record."""
        return {
            "wall_seconds": self.wall_seconds,
            "records": self.records,
            "thresholds_passed": self.rate.passed,
            "batch_size": self.batch.examples,
            "noise": None if self.noise is None else self.noise.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.wall_seconds, self.records, self.fresh = state["wall_seconds"], state["records"], False
        self.rate.passed = state["thresholds_passed"]
        self.batch.resume(state["batch_size"])
        if self.noise is not None and state["noise"] is not None:
            self.noise.load(state["noise"])


class Program(ABC):
    """Runs at the same update that train side by side: how they are updated, evaluated and kept.

    Attributes:
        runs: those that are still there, in the order of the tensors' rows.
        updates, examples: of each of them, so far.
        running_estimates: whether records have the running estimate of the noise scale, which takes its time.
    """

    running_estimates: ClassVar[bool] = False

    def __init__(self, configs: Sequence[SupervisedConfig], data: Dataset):
        self.data = data
        self.runs = [Run(number, config) for number, config in enumerate(configs)]
        self.updates = self.examples = 0
        self._sums = torch.zeros(len(configs), dtype=torch.float64, device=data.train.device)
        self._updates_summed, self._size, self._rates = 0, math.nan, [math.nan] * len(configs)

    def update(self) -> None:
        """One update of every run."""
        size = self.runs[0].batch.examples
        self._size, self._rates = size, [run.rate(self.updates) * run.batch.rate_factor for run in self.runs]
        self._sums += self._step(size, self._rates)
        self._updates_summed += 1
        self.updates, self.examples = self.updates + 1, self.examples + size
        for run in self.runs:
            run.batch.after_update(self.updates, run.noise)

    def losses(self) -> list[float]:
        """Each run's mean loss of batches since the last call; not finite where one of them was not."""
        means = (self._sums / (self._updates_summed or math.nan)).tolist()
        self._sums, self._updates_summed = torch.zeros_like(self._sums), 0
        return means

    def record(self, place: int, loss: float, evaluation: Evaluation, *, regular: bool) -> LossRecord:
        """What a run says; a record that is not regular leaves schedules and the count of records as they are."""
        run = self.runs[place]
        every = run.config.b_noise_every_rows
        curved = regular and every > 0 and run.records % every == 0
        if regular:
            run.records += 1
            run.rate.hear(evaluation.training_loss)
        seconds = run.wall_seconds
        noise: dict[str, Any] = {} if run.noise is None else run.noise.columns(running=self.running_estimates)
        return LossRecord(
            updates=self.updates,
            examples=self.examples,
            wall_seconds=seconds,
            loss=loss,
            **evaluation._asdict(),
            current_learning_rate=self._rates[place],
            current_batch_size=self._size,
            examples_per_second=self.examples / seconds if self.examples and seconds else math.nan,
            hessian_noise_scale=self.b_noise() if curved else math.nan,
            **noise,
        )

    def checkpoint(self, place: int) -> Checkpoint:
        """All that a run needs to continue after its latest record, in this program or another."""
        state = {"updates": self.updates, "examples": self.examples, "run": self.runs[place].state()}
        return Checkpoint(self.updates, {**state, **self._state(place)})

    def resume(self, states: Sequence[Mapping[str, Any] | None]) -> None:
        """Continue from the states of checkpoints; None: from the beginning.

        Raises:
            ConfigError: they are not at the same number of updates.
        """
        updates = {0 if state is None else state["updates"] for state in states}
        if len(updates) > 1:
            raise ConfigError(f"runs at {sorted(updates)} updates cannot be resumed together: resume each by itself")
        for run, state in zip(self.runs, states, strict=True):
            if state is not None:
                run.load(state["run"])
        found = [state for state in states if state is not None]
        if found and found[0]["updates"]:
            self.updates, self.examples = found[0]["updates"], found[0]["examples"]
            self._load(found)

    def keep(self, places: Sequence[int]) -> None:
        """Continue with these runs alone, in this order."""
        self.runs = [self.runs[place] for place in places]
        self._sums, self._rates = self._sums[list(places)], [self._rates[place] for place in places]
        if places:
            self._keep(places)

    @abstractmethod
    def evaluate(self) -> list[Evaluation]:
        """How each run stands."""

    def b_noise(self) -> float:
        """B_noise at the weights, which train; NaN while unresolved."""
        raise NotImplementedError

    @abstractmethod
    def _step(self, size: int, rates: list[float]) -> Tensor:
        """An update with batches of this size at these rates; (runs,) mean losses of the batches."""

    @abstractmethod
    def _state(self, place: int) -> dict[str, Any]:
        """A run's weights, buffers, memory of the optimiser and average, in the form that `recipe` describes."""

    @abstractmethod
    def _load(self, states: Sequence[Mapping[str, Any]]) -> None: ...

    def _keep(self, places: Sequence[int]) -> None:
        raise NotImplementedError


def train(program: Program, control: Control) -> Iterator[tuple[int, Event]]:
    """Train until every run has ended, was stopped or interrupted; see `rl_scaling.domains.base.Domain.run`.

    Records are `ROWS` to a run and evenly spaced in examples, the first before any update so that a run which diverges
    at once has one. `wall_seconds` is a run's share of the time.
    """
    first = program.runs[0].config
    between = max(1, first.updates // ROWS) * first.batch_size
    clock = _Clock()
    if any(run.fresh for run in program.runs):
        yield from _records(program, control, clock, regular=True)
    leaving = control.interrupt
    while program.runs and not leaving:
        before = program.examples // between
        program.update()
        regular = program.examples >= first.examples or program.examples // between > before
        leaving = control.interrupt
        if regular or leaving:
            yield from _records(program, control, clock, regular=regular)
    if leaving:
        yield from _checkpoints(program, control)


def _records(program: Program, control: Control, clock: _Clock, *, regular: bool) -> Iterator[tuple[int, Event]]:
    """A record of each run and what follows from it."""
    losses = program.losses()
    diverged = [program.updates > 0 and not math.isfinite(loss) for loss in losses]
    evaluations = [] if all(diverged) else program.evaluate()
    clock.share(program.runs)
    done = program.examples >= program.runs[0].config.examples
    staying: list[int] = []
    for place, run in enumerate(program.runs):
        if diverged[place]:
            yield run.number, Ended("diverged", f"the loss was no longer finite at {program.updates:,} updates")
            continue
        if program.updates or run.fresh:
            run.fresh = False
            yield run.number, program.record(place, losses[place], evaluations[place], regular=regular)
        if done:
            yield run.number, Ended()
        elif run.number in control.stop:
            yield run.number, program.checkpoint(place)
        else:
            staying.append(place)
    if len(staying) < len(program.runs):
        program.keep(staying)
    if control.checkpoint and regular and not control.interrupt:
        yield from _checkpoints(program, control)


def _checkpoints(program: Program, control: Control) -> Iterator[tuple[int, Event]]:
    control.checkpoint = False
    for place, run in enumerate(program.runs):
        yield run.number, program.checkpoint(place)


class _Clock:
    """Seconds since the last record, shared by the runs that trained in them."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def share(self, runs: Sequence[Run]) -> None:
        now = time.perf_counter()
        for run in runs:
            run.wall_seconds += (now - self._last) / len(runs)
        self._last = now
