"""Gradients of groups of rows for any module, in one pass where its layers allow it and in one per group elsewhere.

Nothing of the module is changed: gradients are handed back and not left in `.grad`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from rl_scaling.noise.torch.groups import PartNorms, is_measurable

Rows = slice | list[int]
RowLosses = Callable[[Rows], Tensor]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INPUT_DIMENSIONS = {nn.Linear: 2, nn.Conv2d: 4}
# Two ways to one gradient differ by rounding; a weight that is used behind its layer's back shows far above this.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class GroupGradients:
    """Gradients of a loss that is a mean over rows.

    Attributes:
        gradient: mean gradient over the rows of all groups: one tensor per trained parameter, in the module's order.
        group_sq_norms: (k,) float64, squared norms of the groups' mean gradients.
        group_sizes: (k,) rows in each group.
        row_sq_norms: (m,) float64, squared norms of the gradients of single rows.
    """

    gradient: tuple[Tensor, ...]
    group_sq_norms: Tensor
    group_sizes: tuple[int, ...]
    row_sq_norms: Tensor

    @property
    def batch_sq_norm(self) -> float:
        """Squared norm of the mean gradient over the rows of all groups."""
        return float(_sq_norm(self.gradient))


class GroupPasses:
    """Takes gradients of groups of rows, in the cheapest way that the module allows.

    The sum over a layer's rows can be added up group by group in one backward pass (`PartNorms`). That needs every
    trained parameter to be the weight or bias of a Linear or Conv2d layer that is used once in a pass, or to belong to
    the module itself (as the `log_std` of a policy does); the first result is compared with plain autograd. Other
    modules, and more rows than fit one pass, take a pass or more for each group.

    Args:
        module: what is differentiated. The loss of a row must depend on no other row.
        rows_per_pass: most rows in one pass forwards, so that memory stays bounded.

    Attributes:
        in_one_pass: whether the module allows it, as far as is known.

    Raises:
        ValueError: the module has batch normalisation, by which rows depend on each other.

    >>> _ = torch.manual_seed(0)
    >>> model, x, y = nn.Linear(3, 1), torch.randn(8, 3), torch.randn(8)
    >>> passes = GroupPasses(model)
    >>> taken = passes.take(lambda rows: (model(x[rows]).squeeze(-1) - y[rows]) ** 2, [slice(0, 4), slice(4, 8)])
    >>> taken.group_sq_norms.shape, taken.group_sizes, len(taken.gradient)
    (torch.Size([2]), (4, 4), 2)
    """

    def __init__(self, module: nn.Module, *, rows_per_pass: int = 1024):
        for name, layer in module.named_modules():
            if isinstance(layer, _BATCH_NORMS):
                raise ValueError(
                    f"{name} is batch normalisation: the gradient of a frame depends on all frames of its batch, and"
                    " a group has none of its own; the noise scale can be measured with LayerNorm or GroupNorm"
                )
        self.module, self.rows_per_pass = module, rows_per_pass
        self.in_one_pass = _is_plain(module)
        self._compared = False

    def take(self, row_losses: RowLosses, groups: Sequence[slice], rows: Sequence[int] = ()) -> GroupGradients:
        """Mean gradients of the groups, of which only the norms are kept, and the mean gradient over all rows.

        Args:
            row_losses: (n,) losses of the n rows it is asked for, from one pass through the module.
            groups: slices of rows, none empty, that follow each other without gap; the first begins at 0.
            rows: single rows whose gradients' norms are wanted as well.
        """
        if self.in_one_pass and groups[-1].stop <= self.rows_per_pass:
            together = self._together(row_losses, groups, rows)
            if together is not None:
                return together
            self.in_one_pass = False
        return self._one_by_one(row_losses, groups, rows)

    def _together(self, row_losses: RowLosses, groups: Sequence[slice], rows: Sequence[int]) -> GroupGradients | None:
        """All groups in one pass; None where the module turns out to forbid it."""
        total = groups[-1].stop
        layers = [layer for layer in _plain_layers(self.module) if layer.weight.requires_grad]
        with _watching(layers) as uses:
            losses = row_losses(slice(0, total)) / total
        if not all(_used_once_per_row(layer, uses[layer], total) for layer in layers):
            return None
        norms = PartNorms(groups, rows, losses.device)
        shares = _of_layers({layer: uses[layer][0] for layer in layers}, losses, norms)
        shares |= _of_its_own(self.module, losses, norms)
        gradient = tuple(shares[parameter] for parameter in _trained(self.module))
        if not self._compared and not _agree(gradient, _gradient(losses.sum(), _trained(self.module))):
            return None
        self._compared = True
        sizes = torch.tensor(_sizes(groups), device=losses.device)
        return GroupGradients(
            gradient, norms.group_sq_norms * (total / sizes) ** 2, _sizes(groups), norms.row_sq_norms * total**2
        )

    def _one_by_one(self, row_losses: RowLosses, groups: Sequence[slice], rows: Sequence[int]) -> GroupGradients:
        parameters, total, sq_norms = _trained(self.module), groups[-1].stop, []
        gradient = [torch.zeros_like(parameter) for parameter in parameters]
        for group, size in zip(groups, _sizes(groups), strict=True):
            mean = [torch.zeros_like(parameter) for parameter in parameters]
            for start in range(group.start, group.stop, self.rows_per_pass):
                losses = row_losses(slice(start, min(start + self.rows_per_pass, group.stop)))
                mean = [m + g for m, g in zip(mean, _gradient(losses.sum() / size, parameters), strict=True)]
            sq_norms.append(_sq_norm(mean))
            gradient = [g + m * (size / total) for g, m in zip(gradient, mean, strict=True)]
        row_sq_norms = [_sq_norm(_gradient(row_losses([row]).sum(), parameters)) for row in rows]
        none = torch.zeros(0, dtype=torch.float64, device=sq_norms[0].device)
        return GroupGradients(
            tuple(gradient), torch.stack(sq_norms), _sizes(groups), torch.stack(row_sq_norms) if rows else none
        )


@dataclass(frozen=True)
class _Use:
    """One call of a layer: what it was given, and where its output stands in the graph."""

    inputs: Tensor
    output: GradientEdge


@contextmanager
def _watching(layers: list[nn.Module]) -> Generator[dict[nn.Module, list[_Use]]]:
    """Inside, calls of the layers are noted down."""
    uses: dict[nn.Module, list[_Use]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        # An edge, because the tensor itself goes on to another place in the graph if an activation works in place.
        uses[layer].append(_Use(inputs[0].detach(), get_gradient_edge(output)))

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def _used_once_per_row(layer: nn.Module, uses: list[_Use], rows: int) -> bool:
    shapes = [use.inputs.shape for use in uses]
    return len(shapes) == 1 and len(shapes[0]) == _INPUT_DIMENSIONS[type(layer)] and shapes[0][0] == rows


def _of_layers(uses: dict[nn.Module, _Use], losses: Tensor, norms: PartNorms) -> dict[nn.Parameter, Tensor]:
    """Gradients of the layers' parameters; their groups' norms go to `norms`."""
    outputs = [use.output for use in uses.values()]
    grads: tuple[Tensor | None, ...] = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
    gradients: dict[nn.Parameter, Tensor] = {}
    for (layer, use), grad in zip(uses.items(), grads, strict=True):
        # torch declares no None here, and gives it all the same where an output does not reach the loss
        if grad is None:  # pyright: ignore[reportUnnecessaryComparison]
            gradients |= {parameter: torch.zeros_like(parameter) for parameter in layer.parameters()}
            continue
        take: Any = norms.linear if isinstance(layer, nn.Linear) else norms.convolution
        with torch.no_grad():
            weight, bias = take(layer, use.inputs, grad)
        gradients |= {p: weight if name == "weight" else bias for name, p in layer.named_parameters()}
    return gradients


def _of_its_own(module: nn.Module, losses: Tensor, norms: PartNorms) -> dict[nn.Parameter, Tensor]:
    """The same for parameters that stand in no layer; they come late in the graph, so that a group's pass is short."""
    own = [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
    if not own:
        return {}
    shares = [_gradient(losses[group].sum(), own) for group in norms.groups]
    norms.group_sq_norms += torch.stack([_sq_norm(share) for share in shares])
    for k, row in enumerate(norms.rows):
        norms.row_sq_norms[k] += _sq_norm(_gradient(losses[row], own))
    return {parameter: torch.stack(parts).sum(0) for parameter, *parts in zip(own, *shares, strict=True)}


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)


def _plain_layers(module: nn.Module) -> list[nn.Module]:
    """Layers that are Linear or Conv2d and nothing else: a subclass may compute something else."""
    return [
        layer
        for layer in module.modules()
        if type(layer) in _INPUT_DIMENSIONS
        and is_measurable(layer)
        and {name for name, _ in layer.named_parameters()} <= {"weight", "bias"}
        and len({parameter.requires_grad for parameter in layer.parameters()}) == 1
    ]


def _is_plain(module: nn.Module) -> bool:
    known = [parameter for layer in _plain_layers(module) for parameter in layer.parameters()]
    known += module.parameters(recurse=False)
    return len(known) == len(set(known)) and set(_trained(module)) <= set(known)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _agree(ours: Sequence[Tensor], autograd: Sequence[Tensor]) -> bool:
    differences = [a - b for a, b in zip(ours, autograd, strict=True)]
    return bool(_sq_norm(differences) <= _ROUNDING**2 * _sq_norm(autograd))


def _sq_norm(gradient: Sequence[Tensor]) -> Tensor:
    return torch.stack([(g**2).sum(dtype=torch.float64) for g in gradient]).sum()


def _sizes(groups: Sequence[slice]) -> tuple[int, ...]:
    return tuple(group.stop - group.start for group in groups)
