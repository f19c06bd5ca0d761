"""What a run says while it goes: typed rows with the units in their names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

NAN = float("nan")

# The terms of an actor-critic's loss whose gradients can be measured apart.
PARTS = ("policy", "value", "entropy")

# "running" and "interrupted" are seen on disk only; a sealed run has one of the other three.
Status = Literal["running", "interrupted", "done", "diverged", "stopped"]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One row of a reinforcement-learning run: totals so far, and means since the row before.

    A quantity that was not observed since the row before is NaN. Frames are counted as the agent sees them, one per
    environment step; steps that only reset an environment are not counted.

    Attributes:
        updates: optimiser updates so far.
        frames: frames learned from so far.
        wall_seconds: seconds spent training so far (starting the environments is not counted).
        frames_per_second: throughput since the row before.
        episodes: episodes (whole games, not lives) finished since the row before.
        score: mean raw score of those episodes.
        episode_frames: mean length of those episodes.
        policy_loss, value_loss, entropy: means over the updates since the row before.
        grad_norm: mean norm of the gradient before clipping.
        current_learning_rate: the rate of the last update.
        noise_measurements: updates since the row before in which the noise scale was measured.
        grad_sq_norm: mean over them of the unbiased estimate of |G|^2 (A.2); may be negative.
        trace_cov: mean over them of the unbiased estimate of tr(Sigma) per frame, groups being whole environments.
        trace_cov_frames: the same for single frames as if they were independent; trace_cov over this is the
            design effect.
        policy_grad_sq_norm, policy_trace_cov, value_grad_sq_norm, value_trace_cov, entropy_grad_sq_norm,
            entropy_trace_cov: the same two for the terms of the gradient (`PARTS`), NaN unless they were asked for.
        noise_scale: the running estimate of B_simple = tr(Sigma) / |G|^2 in frames; NaN while unresolved.
        noise_scale_low, noise_scale_high: its 95 % interval; high is infinite while unresolved.
    """

    updates: int
    frames: int
    wall_seconds: float
    frames_per_second: float
    episodes: int
    score: float
    episode_frames: float
    policy_loss: float
    value_loss: float
    entropy: float
    grad_norm: float
    current_learning_rate: float
    noise_measurements: int = 0
    grad_sq_norm: float = NAN
    trace_cov: float = NAN
    trace_cov_frames: float = NAN
    noise_scale: float = NAN
    noise_scale_low: float = NAN
    noise_scale_high: float = NAN
    policy_grad_sq_norm: float = NAN
    policy_trace_cov: float = NAN
    value_grad_sq_norm: float = NAN
    value_trace_cov: float = NAN
    entropy_grad_sq_norm: float = NAN
    entropy_trace_cov: float = NAN


COLUMNS = tuple(f.name for f in dataclasses.fields(TrainingRecord))


def to_row(record: TrainingRecord) -> dict[str, Any]:
    """A record as a flat dictionary, in column order."""
    return {name: getattr(record, name) for name in COLUMNS}
