"""The loop over updates of trials that train together: what each says, and when it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.batched.optimizers import StackedAverage, StackedOptimizer
from rl_scaling.domains.supervised.batched.training import StackedTraining
from rl_scaling.domains.supervised.data.dataset import Dataset
from rl_scaling.noise.moments import moments_from_groups


@dataclass(frozen=True, eq=False)
class Trial:
    """What is a trial's own, for all updates from 0.

    Attributes:
        model: with its starting weights.
        rows: (batch,) row numbers of the training images for an update.
        learning_rate: for an update.
        updates: after which it is done.
    """

    model: nn.Module
    rows: Callable[[int], Tensor]
    learning_rate: Callable[[int], float]
    updates: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One row of a trial.

    Attributes:
        updates: so far; 0 in a trial's first row, which says where it starts.
        loss: mean of the batches' losses since the row before; NaN in the first.
        training_loss: over the training images (`Dataset.training_sample`), without label smoothing.
        validation_loss, validation_accuracy: the same over the whole validation split. All three are with averaged
            weights if there are.
        noise_measurements: updates since the row before in which the noise scale was measured.
        grad_sq_norm, trace_cov: means over them of the unbiased estimates of |G|^2 and tr(Sigma) (A.2); NaN without.
        hessian_noise_scale: B_noise in examples; NaN where it was not measured or not resolved.
    """

    updates: int
    loss: float
    training_loss: float
    validation_loss: float
    validation_accuracy: float
    noise_measurements: int
    grad_sq_norm: float
    trace_cov: float
    hessian_noise_scale: float = math.nan


@dataclass(frozen=True, eq=False, kw_only=True)
class Ended:
    """A trial left.

    Attributes:
        updates: that it made; where it diverged, those before the first loss that was not finite.
        status: done, diverged, or stopped because it was asked to.
        weights: its last, for `load_state_dict`.
    """

    updates: int
    status: Literal["done", "diverged", "stopped"]
    weights: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """One update in `every_updates`, from the first on, is measured in `groups` groups, which must divide the batch."""

    every_updates: int = 20
    groups: int = 8


# (number of the trial, row) to whether it has seen enough.
Stop = Callable[[int, Progress], bool]
# (|G|^2, tr(Sigma)) of each measurement since the row before, by the number of the trial.
Measured = dict[int, list[tuple[float, float]]]


def train_trials(
    trials: Sequence[Trial],
    data: Dataset,
    optimizer: StackedOptimizer,
    *,
    record_every: int,
    average: StackedAverage | None = None,
    label_smoothing: float = 0.0,
    noise: Noise | None = None,
    stop: Stop = lambda *_: False,
) -> Iterator[tuple[int, Progress | Ended]]:
    """Train until every trial has ended.

    Args:
        trials: of one batch size, whose models are alike.
        data: to train and to validate on.
        optimizer: fresh, for all trials in their order.
        record_every: updates between two rows; a trial's last update has a row as well.
        average: of the weights.
        label_smoothing: of the loss that is trained; evaluation has none.
        noise: how the noise scale is measured; None: not at all.
        stop: asked after every row, with the trial's number: whether it has seen enough.

    Yields:
        (number of the trial, row), the first before any update, and at last (number, end) for each.

    Raises:
        ConfigError: models of this kind cannot train together, or a number of updates is below 1.
    """
    if not trials or min(record_every, *(trial.updates for trial in trials)) < 1:
        raise ConfigError("give one trial or more, of 1 update or more each, and rows 1 update or more apart")
    models = [trial.model for trial in trials]
    training = StackedTraining(models, data.train, optimizer, average=average, label_smoothing=label_smoothing)
    active, done, measured = list(range(len(trials))), 0, Measured()
    sums = torch.zeros(len(trials), dtype=torch.float64, device=data.train.device)  # of losses since the row before
    yield from enumerate(_rows(0, torch.full_like(sums, math.nan), training, data, [[] for _ in active]))
    while active:
        upto = min(done - done % record_every + record_every, *(trials[i].updates for i in active))
        losses = torch.stack([_update(training, trials, active, i, noise, measured) for i in range(done, upto)])
        sums += losses.sum(0, dtype=torch.float64)
        sound = losses.isfinite().long().cumprod(0).sum(0).tolist()  # updates before the first loss that is not finite
        per_update = sums / ((upto - 1) % record_every + 1)
        rows = _rows(upto, per_update, training, data, [measured.get(number, []) for number in active])
        staying = []
        for place, number in enumerate(active):
            end = None
            if sound[place] < upto - done:
                end = Ended(updates=done + sound[place], status="diverged", weights=training.state(place))
            elif upto % record_every == 0 or upto == trials[number].updates:  # else it was another's end
                sums[place], measured[number] = 0, []
                yield number, rows[place]
                end = _end(trials[number], number, rows[place], stop, training, place)
            if end is None:
                staying.append(place)
            else:
                yield number, end
        if len(staying) < len(active):
            training.keep(staying)
            sums = sums[staying]
        active, done = [active[place] for place in staying], upto


def _rows(
    updates: int, losses: Tensor, training: StackedTraining, data: Dataset, measured: list[list[tuple[float, float]]]
) -> list[Progress]:
    validation = training.evaluate(data.validation, averaged=True)
    seen = training.evaluate(data.training_sample, averaged=True)
    columns = (losses, seen.losses, validation.losses, validation.accuracies)
    return [
        Progress(
            updates=updates,
            loss=loss,
            training_loss=training_loss,
            validation_loss=validation_loss,
            validation_accuracy=accuracy,
            noise_measurements=len(found),
            grad_sq_norm=fmean(square for square, _ in found) if found else math.nan,
            trace_cov=fmean(trace for _, trace in found) if found else math.nan,
        )
        for loss, training_loss, validation_loss, accuracy, found in zip(
            *(column.tolist() for column in columns), measured, strict=True
        )
    ]


def _end(trial: Trial, number: int, row: Progress, stop: Stop, training: StackedTraining, place: int) -> Ended | None:
    """How the trial ends with this row; None: it goes on."""
    if row.updates == trial.updates:
        return Ended(updates=row.updates, status="done", weights=training.state(place))
    if stop(number, row):
        return Ended(updates=row.updates, status="stopped", weights=training.state(place))
    return None


def _update(
    training: StackedTraining,
    trials: Sequence[Trial],
    active: Sequence[int],
    step: int,
    noise: Noise | None,
    measured: Measured,
) -> Tensor:
    """One update of the trials that are still there; their losses."""
    rows = torch.stack([trials[i].rows(step) for i in active])
    rates = torch.tensor([trials[i].learning_rate(step) for i in active], dtype=torch.float64)
    groups = noise.groups if noise is not None and step % noise.every_updates == 0 else 0
    found = training.step(rows, rates.to(training.parameters.matrix.device), groups=groups)
    if found.group_sq_norms is not None and found.batch_sq_norms is not None:
        norms = zip(active, found.group_sq_norms.tolist(), found.batch_sq_norms.tolist(), strict=True)
        for number, group_sq_norms, batch_sq_norm in norms:
            moments = moments_from_groups(group_sq_norms, batch_sq_norm, rows.shape[1] / groups)
            measured.setdefault(number, []).append(moments)
    return found.losses
