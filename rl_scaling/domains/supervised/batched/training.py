"""Training of many trials in one batched program, their parameters the rows of one matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rl_scaling.domains.supervised.batched.forward import (
    StackedAverage,
    StackedOptimizer,
    example_losses,
    stacked_forward,
)
from rl_scaling.domains.supervised.data.dataset import Split


class StackedParameters:
    """Parameters of models that differ only in their numbers.

    Args:
        models: one or more.
        device: where the matrix goes.

    Attributes:
        matrix: (trials, parameters); optimisers change it in place.
        named: the same memory under the parameters' names, (trials, *shape) each; they can be differentiated by.
    """

    def __init__(self, models: Sequence[nn.Module], device: str | torch.device = "cpu"):
        self._shapes = {name: parameter.shape for name, parameter in models[0].named_parameters()}
        rows = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models]
        self.matrix = torch.stack(rows).to(device)
        self.named = self.views(self.matrix, differentiable=True)

    def __len__(self) -> int:
        return len(self.matrix)

    def views(self, matrix: Tensor, *, differentiable: bool = False) -> dict[str, Tensor]:
        """A matrix of the same columns under the parameters' names; no memory is copied."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), matrix.detach().split(sizes, dim=1), strict=True)
        return {
            name: part.view(len(matrix), *shape).detach().requires_grad_(differentiable)
            for (name, shape), part in parts
        }

    def gradient(self, losses: Tensor, of: dict[str, Tensor] | None = None) -> Tensor:
        """(trials, parameters) gradients of (trials,) losses, each by the parameters of its own trial."""
        named = self.named if of is None else of
        parts = torch.autograd.grad(losses.sum(), list(named.values()))
        return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)

    def keep(self, trials: Tensor) -> None:
        """Keep only these rows."""
        self.matrix = self.matrix[trials]
        self.named = self.views(self.matrix, differentiable=True)


_GROUP_BYTES = 64 * 2**20  # of group gradients that are in memory at a time
_ROWS_AT_ONCE = 4_096  # images of all trials together in one evaluation pass


@dataclass(frozen=True, eq=False)
class Step:
    """What one update of every trial says.

    Attributes:
        losses: (trials,) mean loss of each batch, before the update; not finite where a trial has diverged.
        group_sq_norms: (trials, groups) float64 squared norms of the groups' mean gradients; None unless measured.
        batch_sq_norms: (trials,) float64 squared norms of the batches' gradients; None unless measured.
    """

    losses: Tensor
    group_sq_norms: Tensor | None = None
    batch_sq_norms: Tensor | None = None


class StackedTraining:
    """Trials that share a model, a batch size and a kind of optimiser, and train as if each were alone.

    Nothing passes from one trial to another: a trial that diverges turns its own row into NaN and can leave at any time
    (`keep`), the others never notice.

    Args:
        models: one per trial, which differ only in their starting weights; they are not changed.
        split: the training images.
        optimizer: for all trials, fresh.
        average: of the weights, if one is wanted.
        label_smoothing: of the loss that is trained; evaluation has none.

    Raises:
        ConfigError: models of this kind cannot train together (`require_stackable`).
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        split: Split,
        optimizer: StackedOptimizer,
        *,
        average: StackedAverage | None = None,
        label_smoothing: float = 0.0,
    ):
        self._model = models[0]
        self._forward = stacked_forward(models[0])
        self._split, self._optimizer, self._average = split, optimizer, average
        self._label_smoothing = label_smoothing
        self.parameters = StackedParameters(models, split.device)

    def __len__(self) -> int:
        return len(self.parameters)

    def step(self, rows: Tensor, learning_rates: Tensor, *, groups: int = 0) -> Step:
        """One update of every trial.

        Args:
            rows: (trials, batch) row numbers of the training images, each trial's own draw.
            learning_rates: (trials,).
            groups: of equal size, of neighbouring rows, whose gradients' norms are taken; 0: none. The update is the
                same, as the batch's gradient is the mean of the groups'.

        Raises:
            ValueError: the batch does not divide into the groups, or the shapes do not fit the trials.
        """
        if len(rows) != len(self) or len(learning_rates) != len(self):
            raise ValueError(f"{len(rows)} batches, {len(learning_rates)} learning rates for {len(self)} trials")
        if groups:
            result, gradients = self._in_groups(rows, groups)
        else:
            inputs, targets = self._split.batch(rows)
            losses = self._losses(self.parameters.named, inputs, targets).mean(1)
            result, gradients = Step(losses.detach()), self.parameters.gradient(losses)
        self._optimizer.step(self.parameters.matrix, gradients, learning_rates)
        if self._average is not None:
            self._average.update(self.parameters.matrix)
        return result

    @torch.no_grad()
    def evaluate(self, split: Split) -> tuple[Tensor, Tensor]:
        """(trials,) mean losses, and shares of images classified right (NaN for an autoencoder's), over a whole split.

        With the averaged weights, if there are any.
        """
        matrix = None if self._average is None else self._average.matrix
        named = self.parameters.named if matrix is None else self.parameters.views(matrix)
        losses = torch.zeros(len(self), dtype=torch.float64, device=split.device)
        right = torch.zeros_like(losses)
        size = max(1, _ROWS_AT_ONCE // len(self))
        for first in range(0, len(split), size):
            inputs, targets = split.batch(slice(first, first + size))
            inputs, targets = (part.expand(len(self), *part.shape) for part in (inputs, targets))
            outputs = self._forward(named, inputs)
            losses += self._example_losses(outputs, inputs, targets, 0.0).double().sum(1)
            right += (outputs.argmax(2) == targets).sum(1) if outputs.dim() == 3 else torch.nan
        return losses / len(split), right / len(split)

    def keep(self, trials: Tensor | Sequence[int]) -> None:
        """Continue with these trials alone, renumbered in this order."""
        chosen = torch.as_tensor(trials, dtype=torch.int64, device=self.parameters.matrix.device)
        for part in (self.parameters, self._optimizer, self._average):
            if part is not None:
                part.keep(chosen)

    def row(self, trial: int) -> dict[str, Any]:
        """Copies of all that one trial needs to continue, as vectors over its parameters."""
        averages = self._average.matrix if self._average is not None else None
        return {
            "weights": self.parameters.matrix[trial].cpu().clone(),
            "memory": self._optimizer.memory(trial),
            "average": None if averages is None else averages[trial].cpu().clone(),
        }

    def load_rows(self, rows: Sequence[Mapping[str, Any]], updates: int) -> None:
        """Continue from the `row` of each trial after this many updates."""
        self.parameters.matrix.copy_(torch.stack([row["weights"] for row in rows]))
        self._optimizer.load([row["memory"] for row in rows], updates, self.parameters.matrix)
        if self._average is not None:
            self._average.matrix = torch.stack([row["average"] for row in rows]).to(self.parameters.matrix)

    def _losses(self, named: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return self._example_losses(self._forward(named, inputs), inputs, targets, self._label_smoothing)

    def _example_losses(self, outputs: Tensor, inputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """(trials, n)."""
        shape = targets.shape
        flat = (part.flatten(0, 1) for part in (outputs, inputs, targets))
        return example_losses(self._model, *flat, label_smoothing=label_smoothing).reshape(shape)

    def _in_groups(self, rows: Tensor, groups: int) -> tuple[Step, Tensor]:
        """The step's figures and the batches' gradients; groups are further trials with the same weights."""
        trials, batch = rows.shape
        if batch % groups:
            raise ValueError(f"a batch of {batch} does not divide into {groups} groups")
        parts = rows.reshape(trials, groups, -1)
        matrix = self.parameters.matrix
        at_once = max(1, _GROUP_BYTES // matrix.nbytes)
        losses, norms, total = [], [], torch.zeros_like(matrix)
        for some in parts.split(at_once, dim=1):
            count = some.shape[1]
            named = self.parameters.views(matrix.repeat_interleave(count, 0), differentiable=True)
            inputs, targets = self._split.batch(some.flatten(0, 1))
            part = self._losses(named, inputs, targets).mean(1)
            gradients = self.parameters.gradient(part, named).view(trials, count, -1)
            losses.append(part.detach().view(trials, count))
            norms.append(gradients.double().square().sum(2))
            total += gradients.sum(1)
        total /= groups
        step = Step(torch.cat(losses, 1).mean(1), torch.cat(norms, 1), total.double().square().sum(1))
        return step, total
