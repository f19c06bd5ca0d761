"""The noise scale of any training loop, from one backward pass: a context manager around it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rl_scaling.noise.clusters import cluster_groups, cluster_slices
from rl_scaling.noise.torch.adapter import Adapter, as_list, plain_name
from rl_scaling.noise.torch.group_gradients import GroupSqNorms, Unmeasurable, measurable_layers, watching


class GradientNoise(Adapter):
    """Measures B_simple (McCandlish et al. 2018, eq. 2.9, A.2) from groups of the rows of one batch.

    Layers add up their gradients group by group while autograd computes them (`group_gradients`), so
    that `.grad` is as always and a measurement costs little. The model may consist of Linear, Conv1d to 3d, Embedding,
    LayerNorm, RMSNorm and GroupNorm layers, each used once in a pass, and of anything without parameters. The
    first dimension of what each layer is given must be the rows: (n, features) or (n, T, features), never (T, n,
    features). Everything else is refused by name. A compiled model runs uncompiled in the steps that are measured.

    Args:
        model: whose loss is differentiated.
        groups: groups into which the rows are divided, 2 or more.
        loss: "mean" over examples or "sum".
        options: parts, every, window, optimizer, scaler: as `Adapter`.

    Raises:
        ValueError: fewer than two groups, a model that cannot be measured, or as `Adapter`.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> noise = GradientNoise(model, every=1, parts="layers")
    >>> for inputs in torch.randn(20, 32, 3):
    ...     with noise.measure(len(inputs)):
    ...         ((model(inputs) - 1) ** 2).mean().backward()
    >>> noise.estimate().resolved
    True
    >>> list(noise.estimates())
    ['total', '0', '2']
    """

    def __init__(self, model: nn.Module, *, groups: int = 8, loss: Literal["mean", "sum"] = "mean", **options: Any):
        if groups < 2:
            raise ValueError(f"groups is {groups}: the noise scale compares groups and needs 2 or more")
        if loss not in ("mean", "sum"):
            raise ValueError(f'loss is {loss!r}: give "mean" or "sum" (over examples)')
        if options.get("preconditioner") is not None:
            raise ValueError(
                "the groups' gradients are never at hand here, so that they cannot be preconditioned: use"
                " MicroBatchNoise or PerExampleNoise"
            )
        super().__init__(model, **options)
        self._layers = {plain_name(name): layer for name, layer in measurable_layers(model).items()}
        self._groups, self._loss = groups, loss

    def _configuration(self) -> dict[str, Any]:
        return {**super()._configuration(), "groups": self._groups, "loss": self._loss}

    @contextmanager
    def measure(self, rows: int | Sequence[Any], *, examples: Iterable[float] | None = None) -> Generator[None]:
        """Put forward and backward pass inside; most steps are not measured and nothing happens.

        Args:
            rows: how many rows the batch has; or (n,) a key for each row (its environment, its document), of which none
                is divided between groups.
            examples: (n,) how many examples each row counts for in the loss (its tokens that are not padding); None: 1.

        Raises:
            ValueError: at the end, what could not be measured; it is measured rightly or not at all.
        """
        if not self._measuring:
            yield
            self._steps += 1
            return
        self._require_same_parameters()
        groups, order = self._grouped(rows)
        taken = GroupSqNorms(groups, order=order)
        with taken.checked(self.parameters), watching(self._layers, taken):
            yield
        self._take(taken, _sizes(groups, order, examples))
        self._steps += 1

    def _grouped(self, rows: int | Sequence[Any]) -> tuple[list[slice], Tensor | None]:
        """Slices of rows, and the order in which they are meant."""
        if isinstance(rows, int | Integral):
            return cluster_slices(np.arange(int(rows) + 1), self._groups), None
        keys = as_list(rows)
        groups = min(self._groups, len(set(keys)))
        of_row = cluster_groups(keys, groups) if groups > 1 else np.zeros(len(keys), dtype=int)
        order = torch.from_numpy(np.argsort(of_row, kind="stable"))
        edges = np.concatenate([[0], np.cumsum(np.bincount(of_row))])
        return cluster_slices(edges, groups), order.to(next(iter(self.parameters.values())).device)

    def _take(self, taken: GroupSqNorms, sizes: list[float]) -> None:
        if taken.problem:
            raise Unmeasurable(taken.problem)
        if not taken.batch_sq_norms:
            if self._steps == 0:
                raise ValueError("no gradients inside measure(): put loss.backward() inside the with block")
            # A loop may leave out the backward pass of a batch gone wrong: skipped and counted.
            nothing = torch.full((len(self.parameters), len(sizes)), torch.nan)
            self._record(nothing, nothing[:, 0], sizes)
            return
        groups, batch = self._by_parameter(taken.of_groups.get), self._by_parameter(taken.batch_sq_norms.get)
        n, scale, per_group = sum(sizes), self._scale(), groups.new_tensor(sizes)
        of_share, of_batch = (n / per_group, 1.0) if self._loss == "mean" else (1 / per_group, 1 / n)
        self._record(groups * (of_share / scale) ** 2, batch * (of_batch / scale) ** 2, sizes)


def _sizes(groups: list[slice], order: Tensor | None, examples: Iterable[float] | None) -> list[float]:
    """Examples in each group."""
    if examples is None:
        return [float(group.stop - group.start) for group in groups]
    counts, n = np.array([float(count) for count in examples]), groups[-1].stop
    if counts.shape != (n,):
        raise ValueError(f"examples has shape {counts.shape}: give one number for each of the {n} rows")
    ordered = counts if order is None else counts[order.cpu().numpy()]
    return [float(ordered[group].sum()) for group in groups]
