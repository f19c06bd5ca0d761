"""The parameters of many models as the rows of one matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StackedParameters:
    """Parameters of models that are alike but for their numbers.

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

    def state(self, trial: int, matrix: Tensor | None = None) -> dict[str, Tensor]:
        """Copies of one trial's parameters, for `load_state_dict`."""
        chosen = self.matrix if matrix is None else matrix
        return {name: part[0].clone() for name, part in self.views(chosen[trial : trial + 1]).items()}

    def keep(self, trials: Tensor) -> None:
        """Keep only these rows."""
        self.matrix = self.matrix[trials]
        self.named = self.views(self.matrix, differentiable=True)
