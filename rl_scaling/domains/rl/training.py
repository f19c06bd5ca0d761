"""The one loop: a learner, a source of experience and a config in; records out. It opens no files.

A batch may follow the noise scale as it is measured (McCandlish et al. 2018, appendix D): with r the price of an update
in frames, the frames and updates of a run cost least together where B(s) = sqrt(r * B_noise(s)) (D.3); in practice
B_simple stands for B_noise (D.6). The batch is changed through the number of environments, between two rollouts.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from rl_scaling.agents.agent import GradientGroups, Update
from rl_scaling.domains.base import Control
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs import GroupedVector, VectorSource
from rl_scaling.noise import NoiseScaleMeter, next_size
from rl_scaling.noise.estimate import example_trace, moments_from_groups
from rl_scaling.records import NAN, REUSE, TrainingRecord


class Diverged(RuntimeError):
    """The loss or the gradient is no longer finite. A result of the run, not a fault of the program."""


class Learner(Protocol):
    """What the loop needs of an agent."""

    learning_rate_factor: float

    def begin(self, source: VectorSource, observations: np.ndarray) -> None: ...

    def step(self, *, num_groups: int = 1, frame_gradients: int = 0, parts: bool = False) -> Update: ...


@dataclass
class Progress:
    """How far a run has come. Made afresh by `Progress.start` or restored with `load_state_dict`."""

    meter: NoiseScaleMeter
    num_envs: int
    updates: int = 0
    frames: int = 0
    frames_used: int = 0
    wall_seconds: float = 0.0
    measurements: int = 0

    @classmethod
    def start(cls, config: RunConfig) -> Progress:
        group_size = config.batch_size / min(config.noise_scale.groups, config.environment.num_envs)
        meter = NoiseScaleMeter(group_size=group_size, window=config.noise_scale.window_measurements)
        return cls(meter, config.environment.num_envs)

    def state_dict(self) -> dict[str, Any]:
        names = ("num_envs", "updates", "frames", "frames_used", "wall_seconds", "measurements")
        counts = {name: getattr(self, name) for name in names}
        return {**counts, "meter": self.meter.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = {"frames_used": state["frames"], **state}  # before it was kept, every frame was used once
        self.meter.load_state_dict(state.pop("meter"))
        for name, value in state.items():
            setattr(self, name, value)


@dataclass
class _SinceRecord:
    """What happened since the last record; `seconds` where the time is shared with other runs."""

    started: float = field(default_factory=time.perf_counter)
    seconds: float | None = None
    frames: int = 0
    updates: list[Update] = field(default_factory=list)
    grad_sq_norms: list[float] = field(default_factory=list)
    traces: list[float] = field(default_factory=list)
    frame_traces: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def reset(source: VectorSource, config: RunConfig, progress: Progress) -> np.ndarray:
    """Start the environments with seeds that the run has not used before; the observations to act on first."""
    seed = np.random.SeedSequence([config.seed, progress.frames]).generate_state(1)[0] >> 1
    return source.reset(int(seed))


def run(
    learner: Learner,
    source: VectorSource,
    config: RunConfig,
    progress: Progress,
    *,
    control: Control | None = None,
    observations: np.ndarray | None = None,
    number: int = 0,
) -> Iterator[TrainingRecord]:
    """Train until `config.frames` frames have been learned from, and yield a record every `record_every_frames`.

    Args:
        learner: acts in `source`.
        source: the environments.
        config: of the run.
        progress: is kept up to date, so that whoever consumes the records can save it between two of them.
        control: an interrupt or a stop ends training after the current update, with a record of what came since the
            last one.
        observations: what `reset` gave; None: it is called here.
        number: of the run, for `control`.

    Raises:
        Diverged: after the record that shows it.
    """
    control = control or Control()
    learner.begin(source, reset(source, config, progress) if observations is None else observations)
    adaptive = AdaptiveBatch(config, learner, source) if config.adaptive else None
    if adaptive and progress.num_envs != source.num_envs:
        adaptive.set_num_envs(progress.num_envs, progress.updates)
    ledger = Ledger(config, progress)
    leave = _leave(control, number)
    while progress.frames < config.frames and not leave:
        ledger.take(learner.step(**what_to_measure(config, progress.updates)))
        leave = _leave(control, number)
        if ledger.due or leave:
            yield ledger.record()
            ledger.begin_next()
            leave = leave or _leave(control, number)
        if adaptive and progress.frames < config.frames and not leave:
            progress.num_envs = adaptive.after_update(
                progress.updates, progress.meter if progress.measurements else None
            )


def _leave(control: Control, number: int) -> bool:
    return control.interrupt or number in control.stop


class Ledger:
    """Counts a run's updates, and makes its records of them.

    Args:
        config: of the run.
        progress: is kept up to date.
    """

    def __init__(self, config: RunConfig, progress: Progress):
        self.config, self.progress = config, progress
        self._since = _SinceRecord()
        self._finite = True

    def take(self, update: Update, *, seconds: float | None = None) -> None:
        """Count what one step did.

        Args:
            update: what it did.
            seconds: the run's share of the time, where runs train side by side; None: all that passes is the run's.
        """
        progress, since = self.progress, self._since
        progress.updates += update.updates
        progress.frames += update.frames
        progress.frames_used += update.frames * update.epochs
        since.frames += update.frames
        since.updates.append(update)
        if seconds is not None:
            since.seconds = (since.seconds or 0.0) + seconds
        if update.groups is not None:
            _measure(update, progress, since)

    @property
    def due(self) -> bool:
        """Whether it is time for a record."""
        config = self.config
        return self._since.frames >= config.record_every_frames or self.done

    @property
    def done(self) -> bool:
        """Whether the run has all its frames."""
        return self.progress.frames >= self.config.frames

    def record(self) -> TrainingRecord:
        """The record of what was counted since the last one."""
        config, since = self.config, self._since
        batch_size = self.progress.num_envs * config.batch_size // config.environment.num_envs
        record = _record(self.progress, since, batch_size)
        self._finite = bool(np.isfinite([record.policy_loss, record.value_loss, record.grad_norm]).all())
        return record

    def begin_next(self) -> None:
        """Begin the next record, once somebody has heard the last one.

        Raises:
            Diverged: its losses or its gradient were not finite.
        """
        if not self._finite:
            raise Diverged(f"the loss is not finite after {self.progress.updates:,} updates")
        self._since = _SinceRecord()


class AdaptiveBatch:
    """Changes the number of environments of one run.

    Args:
        config: of a run with `adaptive`.
        learner: acts in `source`; begins again whenever that has changed, at the learning rate of A.3.
        source: has been reset.

    Raises:
        TypeError: a source whose number of environments cannot change.
    """

    def __init__(self, config: RunConfig, learner: Learner, source: VectorSource):
        assert config.adaptive is not None
        if not isinstance(source, GroupedVector):
            raise TypeError("an adaptive batch needs environments in groups: make_vector(..., group_envs=...)")
        self.config, self.adaptive = config, config.adaptive
        self.learner, self.source = learner, source

    def after_update(self, updates: int, meter: NoiseScaleMeter | None) -> int:
        """The number of environments from now on, changed when it is time and the estimate asks for it.

        Args:
            updates: how many there have been.
            meter: has the noise scale of the latest window; None while nothing was measured.
        """
        now = self.source.num_envs
        since_due = updates % self.adaptive.change_every_updates
        if since_due >= self.config.agent.updates_per_rollout or meter is None:
            return now
        wanted = next_size(
            self.adaptive,
            now,
            meter.estimate(),
            fewest=self.adaptive.min_envs,
            most=self.adaptive.max_envs,
            step=self.adaptive.group_envs,
            each=self.config.agent.batch_size(now) / now,
        )
        if wanted != now:
            self.set_num_envs(wanted, updates)
        return wanted

    def set_num_envs(self, num_envs: int, updates: int) -> None:
        """Add or retire groups, with seeds that follow from the run's seed and the updates so far."""
        seed = np.random.SeedSequence([self.config.seed, updates, num_envs]).generate_state(1)[0] >> 1
        observations = self.source.resize(num_envs, int(seed))
        batch_size = self.config.agent.batch_size
        self.learner.learning_rate_factor = self.adaptive.rate_factor(batch_size(num_envs), self.config.batch_size)
        self.learner.begin(self.source, observations)


def what_to_measure(config: RunConfig, updates: int) -> dict[str, Any]:
    """Arguments of `Learner.step` after this many updates.

    One update in `every_updates` is measured, of each kind that a rollout has: first use of frames, and reuse.
    """
    noise, each = config.noise_scale, config.agent.updates_per_rollout
    measured_together = 2 if config.agent.frame_uses > 1 else 1
    if noise.every_updates == 0 or updates % (noise.every_updates * measured_together) >= each:
        return {}
    return {"num_groups": noise.groups, "frame_gradients": noise.frame_gradients, "parts": noise.parts}


def _measure(update: Update, progress: Progress, since: _SinceRecord) -> None:
    """Hand one update's group gradients to the meter."""
    groups = update.groups
    assert groups is not None
    moments = _moments(groups)
    if moments is None:
        return
    grad_sq_norm, trace = moments
    since.grad_sq_norms.append(grad_sq_norm)
    since.traces.append(trace)
    frame_trace = None
    if len(groups.frame_sq_norms):
        frame_trace = example_trace(groups.frame_sq_norms, grad_sq_norm)
        since.frame_traces.append(frame_trace)
    progress.meter.update(
        groups.sq_norms,
        groups.batch_sq_norm,
        group_sizes=groups.sizes,
        example_trace=frame_trace,
        learning_rate=update.learning_rate,
    )
    progress.measurements += 1
    for part, part_groups in {**update.parts, **({REUSE: update.reuse} if update.reuse else {})}.items():
        for name, value in zip(("grad_sq_norm", "trace_cov"), _moments(part_groups) or (), strict=False):
            since.parts[f"{part}_{name}"].append(value)


def _moments(groups: GradientGroups) -> tuple[float, float] | None:
    """|G|^2 and tr(Sigma); None where they cannot be computed."""
    filled = groups.sizes > 0  # a group may hold nothing but reset steps
    if filled.sum() < 2 or not np.isfinite([groups.batch_sq_norm, *groups.sq_norms[filled]]).all():
        return None
    return moments_from_groups(groups.sq_norms[filled], groups.batch_sq_norm, groups.sizes[filled])


def _record(progress: Progress, since: _SinceRecord, batch_size: int) -> TrainingRecord:
    updates = since.updates
    means = _means(updates)
    # Read the clock after the device has answered.
    seconds = time.perf_counter() - since.started if since.seconds is None else since.seconds
    progress.wall_seconds += seconds
    scores = np.concatenate([u.episode_scores for u in updates])
    lengths = np.concatenate([u.episode_frames for u in updates])
    record = {
        "updates": progress.updates,
        "frames": progress.frames,
        "frames_used": float(progress.frames_used),
        "wall_seconds": progress.wall_seconds,
        "frames_per_second": since.frames / seconds,
        "episodes": len(scores),
        "score": _mean(scores),
        "episode_frames": _mean(lengths),
        "current_learning_rate": updates[-1].learning_rate,
        "current_batch_size": batch_size,
        "noise_measurements": len(since.traces),
        "grad_sq_norm": _mean(since.grad_sq_norms),
        "trace_cov": _mean(since.traces),
        "trace_cov_frames": _mean(since.frame_traces),
    }
    record |= {name: _mean(values) for name, values in since.parts.items()}
    record |= means
    if progress.measurements:
        estimate = progress.meter.estimate()
        record |= {
            "noise_scale": estimate.b_simple,
            "noise_scale_low": estimate.low,
            "noise_scale_high": estimate.high,
        }
    return TrainingRecord(**record)


def _means(updates: list[Update]) -> dict[str, float]:
    """Means of the scalars, with one wait for the device; every step has as many updates as the next."""
    names = ["policy_loss", "value_loss", "entropy", "grad_norm"]
    names += [name for name in ("clip_fraction", "approx_kl") if getattr(updates[0], name) is not None]
    scalars = torch.stack([torch.stack([getattr(u, name) for name in names]) for u in updates])
    return dict(zip(names, scalars.mean(dim=0).tolist(), strict=True))


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else NAN
