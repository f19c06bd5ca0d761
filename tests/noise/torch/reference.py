"""Gradients of groups of examples taken one by one with plain autograd, and models of every kind of layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rl_scaling.noise import MicroBatchNoise, NoiseScaleEstimate, NoiseScaleMeter

GROUPS = [range(4), range(4, 8), range(8, 12)]
Batch = tuple[Tensor, Tensor]


class Model(nn.Module):
    """Any layers in a row, then the mean over what is left but the rows."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.layers(inputs)
        return outputs.flatten(1).mean(1)


def losses(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """(n,), not linear in the outputs."""
    return (model(inputs) - targets) ** 2


def mean_gradient(model: nn.Module, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = losses(model, inputs, targets).mean()
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def sq_norm(gradient: Sequence[Tensor]) -> float:
    return sum(float((g.double() ** 2).sum()) for g in gradient)


def naive_meter(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], groups: Sequence[Sequence[int]]
) -> NoiseScaleMeter:
    """Each batch divided into the same groups of rows."""
    meter = NoiseScaleMeter(1)
    for inputs, targets in batches:
        rows = [list(group) for group in groups]
        norms = [sq_norm(mean_gradient(model, inputs[r], targets[r])) for r in rows]
        together = [row for group in rows for row in group]
        batch = sq_norm(mean_gradient(model, inputs[together], targets[together]))
        meter.update(norms, batch, group_sizes=[len(r) for r in rows])
    return meter


def same(found: NoiseScaleEstimate, expected: NoiseScaleEstimate, rel: float = 1e-6) -> bool:
    """Whether two estimates agree in every number, to `rel`."""
    names = ("grad_sq_norm", "trace_cov", "b_simple", "low", "high")
    pairs = [(getattr(found, name), getattr(expected, name)) for name in names]
    close = all(torch.isclose(torch.tensor(a), torch.tensor(b), rtol=rel, atol=0, equal_nan=True) for a, b in pairs)
    return close and (found.steps, found.skipped) == (expected.steps, expected.skipped)


def regression(seed: int, batches: int, rows: int, *shape: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of float64 inputs and targets that a linear model can partly explain."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batches, rows, *shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(batches, rows, generator=generator, dtype=torch.float64)
    targets = 2 + inputs.flatten(2).mean(2) + 0.5 * noise
    return list(zip(inputs, targets, strict=True))


def model_of(*more: nn.Module) -> Model:
    torch.manual_seed(0)
    return Model(nn.Linear(5, 6), *more, nn.Tanh(), nn.Linear(6, 2)).double()


def accumulated(noise: MicroBatchNoise, model: nn.Module, batch: Batch, kind: str = "mean/k") -> None:
    """One step without the optimiser's."""
    inputs, targets = batch
    model.zero_grad()
    for rows in GROUPS:
        of_rows = losses(model, inputs[rows], targets[rows])
        divided = {"mean/k": of_rows.mean() / 3, "mean": of_rows.mean(), "sum/n": of_rows.sum() / 12}
        divided.get(kind, of_rows.sum()).backward()
        noise.micro_batch(len(rows))
    noise.step()
