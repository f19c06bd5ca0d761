"""Layers that add up their gradient group by group while autograd passes through them.

Inside `watching` a layer's weights are applied by a function whose backward pass hands the inputs and the gradients of
the outputs to `PartNorms`, and autograd gets the sum that comes out: the weight's gradient is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from rl_scaling.noise.torch.groups import PartNorms, convolution_input_gradient

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class _Kind:
    """How one kind of layer is taken apart; every function is given the layer first.

    Attributes:
        prepared: what comes before the weights: normalised inputs.
        outputs: the weights applied to that.
        input_gradient: gradient of what was prepared, from it and the gradient of the outputs.
        gradients: gradients of weight and bias; their groups' norms go to the given `PartNorms`.
    """

    outputs: Callable[[Any, Tensor], Tensor]
    input_gradient: Callable[[Any, Tensor, Tensor], Tensor]
    gradients: Callable[[PartNorms, Any, Tensor, Tensor], tuple[Tensor, Tensor | None]]
    prepared: Callable[[Any, Tensor], Tensor] = lambda layer, inputs: inputs


def _affine(layer: Any, normalised: Tensor) -> Tensor:
    outputs = normalised * _broadcast(layer, layer.weight, normalised)
    if getattr(layer, "bias", None) is not None:
        outputs += _broadcast(layer, layer.bias, normalised)
    return outputs.to(normalised.dtype)  # as the ordinary layer, which answers in the precision it was asked in


def _broadcast(layer: Any, parameter: Tensor, like: Tensor) -> Tensor:
    """GroupNorm's parameters stand for channels, the second dimension."""
    return parameter.reshape(-1, *[1] * (like.dim() - 2)) if isinstance(layer, nn.GroupNorm) else parameter


def _forward(layer: nn.Module, inputs: Tensor) -> Tensor:
    return type(layer).forward(layer, inputs)


def _normalisation(prepared: Callable[[Any, Tensor], Tensor]) -> _Kind:
    return _Kind(
        _affine, lambda layer, _, grads: grads * _broadcast(layer, layer.weight, grads), PartNorms.affine, prepared
    )


_LINEAR = _Kind(_forward, lambda layer, _, grads: grads @ layer.weight.to(grads.dtype), PartNorms.linear)
_CONVOLUTION = _Kind(_forward, convolution_input_gradient, PartNorms.convolution)
_KINDS: dict[type, _Kind] = {
    nn.Linear: _LINEAR,
    nn.Conv1d: _CONVOLUTION,
    nn.Conv2d: _CONVOLUTION,
    nn.Conv3d: _CONVOLUTION,
    nn.Embedding: _Kind(
        _forward,
        lambda layer, tokens, grads: tokens,  # whole numbers have no gradient: never asked for
        lambda norms, layer, tokens, grads: (norms.embedding(layer, tokens, grads), None),
    ),
    nn.LayerNorm: _normalisation(
        lambda layer, x: functional.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    ),
    nn.RMSNorm: _normalisation(lambda layer, x: functional.rms_norm(x, layer.normalized_shape, None, layer.eps)),
    nn.GroupNorm: _normalisation(lambda layer, x: functional.group_norm(x, layer.num_groups, None, None, layer.eps)),
}
SUPPORTED = ", ".join(kind.__name__ for kind in _KINDS)


def measurable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers by name that have all of the model's trained parameters.

    Raises:
        ValueError: a trained parameter elsewhere or in two layers, a layer with an unusual setting, or batch
            normalisation; by name, with what to do.
    """
    found: dict[str, nn.Module] = {}
    owners: dict[nn.Parameter, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, BATCH_NORMS):
            raise ValueError(
                f"{name} is {type(layer).__name__}: the examples of a batch depend on each other through it, so that"
                f" groups of rows have no gradients of their own; {ADVICE}"
            )
        trained = {n: p for n, p in layer.named_parameters(recurse=False, remove_duplicate=False) if p.requires_grad}
        for parameter_name, parameter in trained.items():
            path = f"{name}.{parameter_name}".lstrip(".")
            if parameter in owners:
                raise ValueError(f"{path} is {owners[parameter]} as well: tied weights have two uses; {ADVICE}")
            owners[parameter] = path
            if type(layer) not in _KINDS or not trained.keys() <= {"weight", "bias"}:
                raise ValueError(f"{path} is in a {type(layer).__name__}, which is none of {SUPPORTED}; {ADVICE}")
        if trained:
            _refuse_unusual(name, layer)
            found[name] = layer
    return found


ADVICE = "use MicroBatchNoise, which measures any layer, or PerExampleNoise"


def _refuse_unusual(name: str, layer: Any) -> None:
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        unusual = layer.padding_mode != "zeros" or isinstance(layer.padding, str)
        what = "padding other than zeros given in numbers"
    elif isinstance(layer, nn.Embedding):
        unusual, what = layer.sparse or layer.scale_grad_by_freq or layer.max_norm, "sparse, scaled or clipped rows"
    else:
        return
    if unusual:
        raise ValueError(f"{name} has {what}, which cannot be taken apart; {ADVICE}")


class Rows:
    """Collects what the layers say about the groups of rows of one batch.

    Args:
        groups: slices of the rows, when these are in `order`.
        order: (n,) row numbers that bring the groups together; None: as they are.
        rows: n, the first dimension of what every layer is given.

    Attributes:
        group_sq_norms: (k,) for each parameter: squared norms of the groups' shares in its gradient.
        batch_sq_norms: squared norm of each parameter's gradient.
    """

    def __init__(self, groups: list[slice], order: Tensor | None, rows: int):
        self._groups, self._order, self._rows = groups, order, rows
        self._seen: set[nn.Module] = set()
        self._sums: dict[nn.Parameter, tuple[int, int]] = {}
        self.group_sq_norms: dict[nn.Parameter, Tensor] = {}
        self.batch_sq_norms: dict[nn.Parameter, Tensor] = {}
        self.problem = ""

    def enter(self, name: str, layer: nn.Module, inputs: Tensor) -> None:
        """A layer is about to be applied.

        Raises:
            ValueError: for the second time, or to something else than the rows.
        """
        shape = tuple(inputs.shape)
        positions = isinstance(layer, nn.Embedding) and len(shape) == 1
        if shape[:1] != (self._rows,) or (positions and inputs.equal(torch.arange(len(inputs), device=inputs.device))):
            raise ValueError(
                f"{name} is given a tensor of shape {shape}: its first dimension must be the {self._rows} rows of the"
                f" batch (positions, too, as one line for each row); {ADVICE}"
            )
        if layer in self._seen:
            raise ValueError(f"{name} is used more than once in a pass (or recomputed by checkpointing); {ADVICE}")
        self._seen.add(layer)

    @torch.no_grad()
    def take(self, kind: _Kind, layer: Any, inputs: Tensor, output_grads: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients of a layer's weight and bias, whose groups' norms are kept."""
        if layer.weight in self._sums:
            self.problem = "loss.backward() was called more than once"
        if self._order is not None:
            inputs, output_grads = inputs[self._order], output_grads[self._order]
        norms = PartNorms(self._groups, [], output_grads.device)
        weight, bias = kind.gradients(norms, layer, inputs, output_grads)
        weight = self._keep(layer.weight, weight, norms.group_sq_norms - norms.bias_sq_norms)
        if bias is None or getattr(layer, "bias", None) is None:
            return weight, None
        return weight, self._keep(layer.bias, bias, norms.bias_sq_norms)

    def _keep(self, parameter: nn.Parameter, gradient: Tensor, group_sq_norms: Tensor) -> Tensor:
        # Not the tensor itself: autograd would have to copy it for .grad, because someone else holds it.
        gradient = gradient.to(parameter.dtype)
        self._sums[parameter] = _identity(gradient)
        self.group_sq_norms[parameter] = group_sq_norms
        return gradient

    @torch.no_grad()
    def arrived(self, name: str, parameter: nn.Parameter, gradient: Tensor, sq_norm: Tensor) -> None:
        """Autograd has a parameter's whole gradient: it must be what the rows' shares add up to."""
        if self._sums.get(parameter) != _identity(gradient):
            self.problem = (
                f"{name} has a gradient that does not come from its layer's rows alone: it is used elsewhere as well"
                f" (in the loss, as weight decay, or by another module), or another hook changes it; {ADVICE}"
            )
        self.batch_sq_norms[parameter] = sq_norm


def _identity(gradient: Tensor) -> tuple[int, int]:
    """Where a tensor is and how often it was changed in place: autograd may add up other uses of a parameter in it."""
    return gradient.data_ptr(), gradient._version


class _Weighted(torch.autograd.Function):
    """Outputs of a layer's weights; backward, their gradients group by group."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, layer: Any, kind: _Kind, rows: Rows
    ) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.layer, ctx.kind, ctx.rows = layer, kind, rows
        outputs = kind.outputs(layer, inputs)
        # The outputs for sequences are a view of a matrix, which an activation could then not change in place.
        return torch.ops.aten._unsafe_view(outputs, outputs.shape)

    # Pyright takes the decorator to hide the name of the first argument.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grads,) = grad_outputs
        (inputs,) = ctx.saved_tensors
        kind = grads.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            # As the ordinary layer would have it under automatic mixed precision.
            given = inputs.to(grads.dtype) if inputs.is_floating_point() else inputs
            to_inputs = None
            if ctx.needs_input_grad[0]:
                to_inputs = ctx.kind.input_gradient(ctx.layer, given, grads).to(inputs.dtype)
            weight, bias = ctx.rows.take(ctx.kind, ctx.layer, given, grads)
        wanted = ctx.needs_input_grad
        return to_inputs, weight if wanted[1] else None, bias if wanted[2] else None, None, None, None


@contextmanager
def watching(layers: dict[str, nn.Module], rows: Rows) -> Generator[None]:
    """Inside, the layers tell `rows` of the gradients that pass through them.

    Raises:
        ValueError: somebody else has replaced a layer's forward.
    """
    for name, layer in layers.items():
        if "forward" in vars(layer):
            raise ValueError(f"{name} has a forward of its own in place of its class's, unknown here; {ADVICE}")
    try:
        for name, layer in layers.items():
            # An instance attribute hides the class's forward until it is deleted again.
            vars(layer)["forward"] = _Watched(name, layer, rows)
        yield
    finally:
        for layer in layers.values():
            vars(layer).pop("forward", None)


class _Watched:
    """Stands in for one layer's forward."""

    def __init__(self, name: str, layer: Any, rows: Rows):
        self._name, self._layer, self._rows = name, layer, rows

    def __call__(self, input: Tensor) -> Tensor:  # named as in torch's layers: it may be given by name
        layer, kind = self._layer, _KINDS[type(self._layer)]
        if not torch.is_grad_enabled():
            return type(layer).forward(layer, input)
        self._rows.enter(self._name, layer, input)
        prepared = kind.prepared(layer, input)
        outputs: Any = _Weighted.apply(prepared, layer.weight, getattr(layer, "bias", None), layer, kind, self._rows)
        return outputs
