"""What a run is and what it says as it trains: its identity, and typed rows with the units in their names.

A domain has its own type of row, and columns that mean the same have the same name in all of them but one: what
reinforcement learning counts in frames others count in examples. Side by side in one table (`COLUMNS`) both are
examples, and the run's `Identity` says what an example is there and what its goals are about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

NAN = float("nan")

# How a run ended, and how it stands on disk before that.
SealedStatus = Literal["done", "diverged", "stopped"]
Status = Literal["running", "interrupted"] | SealedStatus
SEALED: tuple[SealedStatus, ...] = ("done", "diverged", "stopped")

Direction = Literal["max", "min"]
_DIRECTIONS: dict[str, Direction] = {
    "score": "max",
    "loss": "min",
    "training_loss": "min",
    "validation_loss": "min",
}


@dataclass(frozen=True)
class Measure:
    """What a task counts, and what its goals are about.

    Attributes:
        unit: of the batch size and of all totals: "frames" as an agent sees them, "examples" or "tokens".
        quantity: the column that is compared with the goals: "score" (reached from below), "loss",
            "training_loss" or "validation_loss" (reached from above).

    Raises:
        ValueError: there is no such unit or quantity.
    """

    unit: str = "frames"
    quantity: str = "score"

    def __post_init__(self) -> None:
        if self.unit not in RECORD_TYPES or self.quantity not in _DIRECTIONS:
            raise ValueError(f"no runs count {self.unit!r} and have goals of {self.quantity!r}")

    @property
    def direction(self) -> Direction:
        """Whether goals are reached from below ("max") or from above ("min")."""
        return _DIRECTIONS[self.quantity]

    @property
    def over_episodes(self) -> bool:
        """Whether the quantity is a mean over episodes, which is smoothed; a loss is compared as it is."""
        return self.quantity == "score"

    @property
    def words(self) -> str:
        """The quantity for people."""
        return self.quantity.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells runs apart: columns of every table, never read back out of a label.

    Runs that agree in the fields up to `quantity` are of one task and are compared with each other.

    Attributes:
        domain: "rl", "supervised" or "nqm".
        problem: what is learned: "Breakout", "digits-mlp".
        algorithm: what learns it: "a2c", "sgd+ema".
        variant: settings that differ from their defaults and make a task of its own, for display.
        budget_amount, budget_unit: the fixed budget that the schedule is stretched over, "epochs" or "steps"; NaN and
            "" where there is none.
        unit, quantity: see `Measure`.
        batch_size: units per update; of an adaptive batch, at the start.
        learning_rate: at the start.
        setting: what is tuned beside the learning rate, for display: "momentum=0.9".
        exchange_rate: r of an adaptive batch in units per update (M18, D.3); NaN of a fixed one.
        seed: of everything that is random.
    """

    domain: str
    problem: str
    algorithm: str
    variant: str = ""
    budget_amount: float = NAN
    budget_unit: str = ""
    unit: str = "frames"
    quantity: str = "score"
    batch_size: int
    learning_rate: float
    setting: str = ""
    exchange_rate: float = NAN
    seed: int = 0

    @property
    def measure(self) -> Measure:
        return Measure(self.unit, self.quantity)

    @property
    def frozen(self) -> bool:
        """Whether nothing was learned: a noise scale measured with the weights kept."""
        return FROZEN in self.variant.split()

    @property
    def adaptive(self) -> bool:
        """Whether the batch size follows the noise scale."""
        return self.exchange_rate == self.exchange_rate

    @property
    def budget(self) -> str:
        """The budget for people."""
        return f"{self.budget_amount:.10g} {self.budget_unit}" if self.budget_unit else ""

    @property
    def task(self) -> str:
        """The task for people, and a key that is unique to it."""
        budget = f"budget={self.budget}" if self.budget else ""
        return " ".join(part for part in (self.problem, self.algorithm, self.variant, budget) if part)


# The prefix of what is measured where frames are used again.
REUSE = "reuse"
# The terms of an actor-critic's loss whose gradients can be measured apart.
PARTS = ("policy", "value", "entropy")
# The word in a variant that says that nothing is learned: the noise scale of weights that are kept.
FROZEN = "frozen"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One row of a reinforcement-learning run: totals so far, and means since the row before.

    A quantity that was not observed since the row before is NaN. Frames are counted as the agent sees them, one per
    environment step; steps that only reset an environment are not counted.

    Attributes:
        updates: optimiser updates so far; where minibatches keep their size, outer steps (`PPOConfig.scaling`).
        frames: frames learned from so far.
        wall_seconds: seconds spent training so far (starting the environments is not counted; those that an adaptive
            batch adds on the way are). Of runs that train side by side each has its share of the time that passed.
        frames_per_second: throughput since the row before, frames over those seconds: side by side it is what all of
            them do together.
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
        reuse_grad_sq_norm, reuse_trace_cov: the same two for updates of later epochs, whose frames were used before,
            where there are such; the columns without a prefix are then of first epochs alone.
        noise_scale: the running estimate of B_simple = tr(Sigma) / |G|^2 in frames; NaN while unresolved.
        noise_scale_low, noise_scale_high: its 95 % interval; high is infinite while unresolved.
        frames_used: frames that the updates so far used, a frame counting as often as it was used (frames x epochs);
            NaN in rows from before this was kept, when every frame was used once.
        clip_fraction, approx_kl: of PPO, means over the updates since the row before: the share of frames whose ratio
            of new to old policy was clipped, and an estimate of the divergence of the two.
        current_batch_size: frames of the last update, reset steps included: environments times steps. It changes where
            the batch is adaptive; NaN in runs of earlier versions.
        grad_curvature, noise_curvature: where weights are kept, unbiased estimates of G^T H G and of tr(H Sigma) per
            frame since the row before; either may be negative.
        hessian_noise_scale: the running estimate of B_noise = tr(H Sigma) / (G^T H G) (2.8) from them, in frames; NaN
            while unresolved.
        hessian_noise_scale_low, hessian_noise_scale_high: its 95 % interval.
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
    reuse_grad_sq_norm: float = NAN
    reuse_trace_cov: float = NAN
    frames_used: float = NAN
    clip_fraction: float = NAN
    approx_kl: float = NAN
    current_batch_size: float = NAN
    grad_curvature: float = NAN
    noise_curvature: float = NAN
    hessian_noise_scale: float = NAN
    hessian_noise_scale_low: float = NAN
    hessian_noise_scale_high: float = NAN


@dataclass(frozen=True, kw_only=True)
class LossRecord:
    """One row of a run that brings a loss down: totals so far, and what holds since the row before.

    Attributes:
        updates: optimiser updates so far; a row at 0 says where the run starts.
        examples: examples learned from so far.
        wall_seconds: seconds spent training so far.
        loss: the training loss: exact where it is known (the risk of the noisy quadratic model), otherwise the mean
            over the updates since the row before, of batches as they were trained on.
        training_loss: at this row, over the training data as they are, without dropout, augmentation or smoothing of
            labels; over a fixed sample where they are many. NaN where it was not measured.
        validation_loss: the same on data that is not trained on; NaN where it was not measured.
        validation_accuracy: share of those data that is classified right; NaN where it was not measured.
        current_learning_rate: the rate of the last update.
        examples_per_second: throughput since the row before.
        grad_norm: mean norm of the gradient before clipping.
        noise_measurements, grad_sq_norm, trace_cov, noise_scale, noise_scale_low, noise_scale_high: as in
            `TrainingRecord`, per example.
        trace_cov_examples: where examples depend on each other, tr(Sigma) as if they did not.
        hessian_noise_scale: B_noise = tr(H Sigma) / (G^T H G) (2.8) in examples; NaN where it is not known.
        current_batch_size: examples of the last update. It changes where the batch is adaptive; NaN where it was not
            kept.
    """

    updates: int
    examples: int
    wall_seconds: float
    loss: float
    training_loss: float = NAN
    validation_loss: float = NAN
    validation_accuracy: float = NAN
    current_learning_rate: float = NAN
    examples_per_second: float = NAN
    grad_norm: float = NAN
    noise_measurements: int = 0
    grad_sq_norm: float = NAN
    trace_cov: float = NAN
    trace_cov_examples: float = NAN
    noise_scale: float = NAN
    noise_scale_low: float = NAN
    noise_scale_high: float = NAN
    hessian_noise_scale: float = NAN
    current_batch_size: float = NAN


Record = TrainingRecord | LossRecord
RECORD_TYPES: dict[str, type[Record]] = {"frames": TrainingRecord, "examples": LossRecord, "tokens": LossRecord}

# Fields of `TrainingRecord` under the names they have in a table of runs of every domain.
IN_A_TABLE = {
    "frames": "examples",
    "frames_per_second": "examples_per_second",
    "frames_used": "examples_used",
    "trace_cov_frames": "trace_cov_examples",
}


def fields_of(record_type: type[Record]) -> tuple[str, ...]:
    """The fields of a type of record, in order."""
    return tuple(f.name for f in dataclasses.fields(record_type))


def record_type_of(names: Iterable[str]) -> type[Record]:
    """The type whose rows have these fields: the one that counts what they count."""
    return LossRecord if "examples" in names else TrainingRecord


# The columns of a table of runs.
COLUMNS = tuple(
    dict.fromkeys(
        [*(IN_A_TABLE.get(name, name) for name in fields_of(TrainingRecord)), *fields_of(LossRecord)],
    )
)


def to_row(record: Record) -> dict[str, Any]:
    """A record as a flat dictionary, in the order of its fields."""
    return {name: getattr(record, name) for name in fields_of(type(record))}
