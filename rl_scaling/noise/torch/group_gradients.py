"""Gradients of groups of rows, taken in one backward pass: the one way for every loop.

Inside `watching` a layer's weights are applied by a function whose backward pass adds up the weight's gradient group by
group (`layer_gradients`) and hands autograd the sum: it is computed once, and is what it would be anyway. What a layer
gave before may be handed out again, so that a pass that was made without gradients can be differentiated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rl_scaling.noise.torch.layer_gradients import LAYERS, Groups, Layer, Share, sq_norm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

Rows = slice | list[int]
RowLosses = Callable[[Rows], Tensor]


class Unmeasurable(ValueError):
    """A model, or a use of it, whose gradient cannot be taken apart by rows.

    Attributes:
        what: the problem, without the advice.
    """

    def __init__(self, what: str):
        super().__init__(f"{what}; use MicroBatchNoise, which measures any layer, or PerExampleNoise")
        self.what = what


def measurable_layers(model: nn.Module, *, besides: Collection[nn.Parameter] = ()) -> dict[str, nn.Module]:
    """The layers by name that have all of the model's trained parameters.

    Args:
        model: any module.
        besides: parameters that may stand elsewhere.

    Raises:
        Unmeasurable: a trained parameter elsewhere or in two layers, a layer with an unusual setting, or batch
            normalisation; by name.
    """
    found: dict[str, nn.Module] = {}
    owners: dict[nn.Parameter, str] = {}
    elsewhere = set(besides)
    for name, layer in model.named_modules():
        if isinstance(layer, BATCH_NORMS):
            raise Unmeasurable(
                f"{name} is {type(layer).__name__}: the examples of a batch depend on each other through it, so that"
                " groups of rows have no gradients of their own"
            )
        own = layer.named_parameters(recurse=False, remove_duplicate=False)
        trained = {n: p for n, p in own if p.requires_grad and p not in elsewhere}
        for parameter_name, parameter in trained.items():
            path = f"{name}.{parameter_name}".lstrip(".")
            if parameter in owners:
                raise Unmeasurable(f"{path} is {owners[parameter]} as well: tied weights have two uses")
            owners[parameter] = path
            if type(layer) not in LAYERS or not trained.keys() <= {"weight", "bias"}:
                supported = ", ".join(kind.__name__ for kind in LAYERS)
                raise Unmeasurable(f"{path} is in a {type(layer).__name__}, which is none of {supported}")
        if trained:
            _refuse_unusual(name, layer)
            found[name] = layer
    return found


def _refuse_unusual(name: str, layer: Any) -> None:
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        unusual = layer.padding_mode != "zeros" or isinstance(layer.padding, str)
        what = "padding other than zeros given in numbers"
    elif isinstance(layer, nn.Embedding):
        unusual, what = layer.sparse or layer.scale_grad_by_freq or layer.max_norm, "sparse, scaled or clipped rows"
    else:
        return
    if unusual:
        raise Unmeasurable(f"{name} has {what}, which cannot be taken apart")


class GroupSqNorms:
    """Collects, parameter by parameter, squared norms of the groups' shares in the gradient of a sum over rows.

    Args:
        groups: slices of the rows, when these are in `order`; they cover the batch, in order and without overlap.
        rows: single rows, in that order too, whose gradients are wanted as well.
        order: (n,) row numbers that bring the groups together; None: as they are.
        device: of the gradients.

    Attributes:
        of_groups, of_rows: (k,) and (m,) float64, what groups and rows have in each trained parameter.
        batch_sq_norms: squared norms of the parameters' gradients, where they were `checked`.
        problem: why the shares do not explain the gradient; empty: they do.
    """

    def __init__(
        self,
        groups: Sequence[slice],
        rows: Sequence[int] = (),
        *,
        order: Tensor | None = None,
        device: torch.device | None = None,
    ):
        self._groups, self._order, self._device = Groups(groups, rows), order, device
        self.groups, self.rows = self._groups.slices, self._groups.rows
        self._seen: set[nn.Module] = set()
        self.reset()

    def reset(self) -> None:
        """Forget the norms, for another backward pass through the same graph."""
        self.of_groups: dict[nn.Parameter, Tensor] = {}
        self.of_rows: dict[nn.Parameter, Tensor] = {}
        self.batch_sq_norms: dict[nn.Parameter, Tensor] = {}
        self.problem = ""
        self._sums: dict[nn.Parameter, tuple[int, int]] = {}

    @property
    def group_sq_norms(self) -> Tensor:
        """(k,) float64, over all parameters."""
        return sum(self.of_groups.values(), torch.zeros(len(self.groups), dtype=torch.float64, device=self._device))

    @property
    def row_sq_norms(self) -> Tensor:
        """(m,) float64, over all parameters."""
        return sum(self.of_rows.values(), torch.zeros(len(self.rows), dtype=torch.float64, device=self._device))

    def enter(self, name: str, layer: nn.Module, inputs: Tensor) -> None:
        """A layer is about to be applied.

        Raises:
            Unmeasurable: for the second time, or to something else than the rows.
        """
        shape, total = tuple(inputs.shape), self.groups[-1].stop
        positions = isinstance(layer, nn.Embedding) and len(shape) == 1
        if shape[:1] != (total,) or (positions and inputs.equal(torch.arange(total, device=inputs.device))):
            raise Unmeasurable(
                f"{name} is given a tensor of shape {shape}: its first dimension must be the {total} rows of the"
                " batch (positions, too, as one line for each row)"
            )
        if layer in self._seen:
            raise Unmeasurable(f"{name} is used more than once in a pass (or recomputed by checkpointing)")
        self._seen.add(layer)

    def take(self, kind: Layer, layer: Any, inputs: Tensor, grads: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients of a layer's weight and bias, of whose shares the norms are kept."""
        if layer.weight in self._sums:
            self.problem = "loss.backward() was called more than once"
        if self._order is not None:
            inputs, grads = inputs[self._order], grads[self._order]
        weight = self._kept(layer.weight, kind.weight_by_groups(layer, inputs, grads, self._groups))
        if getattr(layer, "bias", None) is None:
            return weight, None
        return weight, self._kept(layer.bias, kind.bias_by_groups(layer, grads, self._groups))

    def _kept(self, parameter: nn.Parameter, share: Share) -> Tensor:
        gradient = share.gradient.to(parameter.dtype)
        if parameter.requires_grad:
            # Not the tensor itself: autograd would have to copy it for .grad, because someone else holds it.
            self._sums[parameter] = _identity(gradient)
            self.of_groups[parameter], self.of_rows[parameter] = share.group_sq_norms, share.row_sq_norms
        return gradient

    @contextmanager
    def checked(self, parameters: Mapping[str, nn.Parameter]) -> Generator[None]:
        """Inside, whole gradients that autograd has ready are compared with what the rows' shares add up to."""

        def arrived(name: str, parameter: nn.Parameter) -> Callable[[Tensor], None]:
            def hook(gradient: Tensor) -> None:
                if self._sums.get(parameter) != _identity(gradient):
                    self.problem = (
                        f"{name} has a gradient that does not come from its layer's rows alone: it is used elsewhere as"
                        " well (in the loss, as weight decay, or by another module), or another hook changes it"
                    )
                self.batch_sq_norms[parameter] = sq_norm(gradient.detach())

            return hook

        with ExitStack() as hooks:
            for name, parameter in parameters.items():
                hooks.callback(parameter.register_hook(arrived(name, parameter)).remove)
            yield


def _identity(gradient: Tensor) -> tuple[int, int]:
    """Where a tensor is and how often it was changed in place: autograd may add up other uses of a parameter in it."""
    return gradient.data_ptr(), gradient._version


@contextmanager
def watching(
    layers: Mapping[str, nn.Module],
    norms: GroupSqNorms | None,
    outputs: Mapping[nn.Module, Tensor] | None = None,
) -> Generator[None]:
    """Inside, the layers tell `norms` of the gradients that pass through them.

    Args:
        layers: as `measurable_layers` finds them.
        norms: of the rows that the layers are given; None: nothing is taken apart.
        outputs: what the layers gave before for the same inputs and weights, to be handed out again; None: they are
            applied.

    Raises:
        Unmeasurable: somebody else has replaced a layer's forward.
    """
    for name, layer in layers.items():
        if "forward" in vars(layer):
            raise Unmeasurable(f"{name} has a forward of its own in place of its class's, unknown here")
    try:
        for name, layer in layers.items():
            # An instance attribute hides the class's forward until it is deleted again.
            vars(layer)["forward"] = _watched(name, layer, norms, None if outputs is None else outputs[layer])
        with nullcontext() if norms is None else _uncompiled():
            yield
    finally:
        for layer in layers.values():
            vars(layer).pop("forward", None)


def _uncompiled() -> Any:
    """Compiled code does not notice that a layer's forward was replaced."""
    if "torch._dynamo" not in sys.modules:  # then nothing was compiled, and loading it would take seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _watched(name: str, layer: Any, norms: GroupSqNorms | None, outputs: Tensor | None) -> Callable[[Tensor], Any]:
    """Stands in for one layer's forward."""
    kind, bias = LAYERS[type(layer)], getattr(layer, "bias", None)

    def forward(input: Tensor) -> Any:  # named as in torch's layers: it may be given by name
        if not torch.is_grad_enabled():
            return type(layer).forward(layer, input)
        if norms is not None:
            norms.enter(name, layer, input)
        return _Weighted.apply(kind.prepared(layer, input), layer.weight, bias, layer, kind, norms, outputs)

    return forward


class _Weighted(torch.autograd.Function):
    """Outputs of a layer's weights; backward, their gradients group by group."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layer: Any,
        kind: Layer,
        norms: GroupSqNorms | None,
        outputs: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.layer, ctx.kind, ctx.norms = layer, kind, norms
        if outputs is not None:
            return outputs
        outputs = kind.outputs(layer, inputs)
        # The outputs for sequences are a view of a matrix, which an activation could then not change in place.
        return torch.ops.aten._unsafe_view(outputs, outputs.shape)

    # Pyright takes the decorator to hide the name of the first argument.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grads,) = grad_outputs
        inputs, _ = ctx.saved_tensors
        layer, kind, wanted, device = ctx.layer, ctx.kind, ctx.needs_input_grad, grads.device.type
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            # As the ordinary layer would have it under automatic mixed precision.
            given = inputs.to(grads.dtype) if inputs.is_floating_point() else inputs
            to_inputs = kind.input_gradient(layer, given, grads).to(inputs.dtype) if wanted[0] else None
            if ctx.norms is not None:
                weight, bias = ctx.norms.take(kind, layer, given, grads)
            else:
                weight = kind.weight(layer, given, grads) if wanted[1] else None
                bias = kind.bias(layer, grads) if wanted[2] else None
        return to_inputs, weight if wanted[1] else None, bias if wanted[2] else None, None, None, None, None


@dataclass(frozen=True)
class GroupGradients:
    """Gradients of a loss that is a mean over rows.

    Attributes:
        gradient: mean gradient over the rows of all groups: one tensor per trained parameter, in the module's order.
        group_sq_norms: (k,) float64, squared norms of the groups' mean gradients.
        group_sizes: (k,) rows in each group.
        row_sq_norms: (m,) float64, squared norms of the gradients of single rows.
        batch_sq_norm: squared norm of `gradient`.
    """

    gradient: tuple[Tensor, ...]
    group_sq_norms: Tensor
    group_sizes: tuple[int, ...]
    row_sq_norms: Tensor
    batch_sq_norm: float


class ModuleGradients:
    """Takes gradients of groups of rows for any module: in one pass where its layers allow it, elsewhere one by one.

    One pass needs every trained parameter to be in a layer that can be taken apart (`measurable_layers`) and is used
    once, or to belong to the module itself (as the `log_std` of a policy does). Other modules, and more rows than fit
    one pass, take a pass or more for each group. Nothing of the module is changed: gradients are handed back and not
    left in `.grad`.

    Args:
        module: what is differentiated. The loss of a row must depend on no other row.
        rows_per_pass: most rows in one pass forwards, so that memory stays bounded.

    Attributes:
        in_one_pass: whether the module allows it, as far as is known.

    Raises:
        ValueError: the module has batch normalisation, by which rows depend on each other.

    >>> _ = torch.manual_seed(0)
    >>> model, x, y = nn.Linear(3, 1), torch.randn(8, 3), torch.randn(8)
    >>> gradients = ModuleGradients(model)
    >>> taken = gradients.take(lambda rows: (model(x[rows]).squeeze(-1) - y[rows]) ** 2, [slice(0, 4), slice(4, 8)])
    >>> taken.group_sq_norms.shape, taken.group_sizes, len(taken.gradient)
    (torch.Size([2]), (4, 4), 2)
    """

    def __init__(self, module: nn.Module, *, rows_per_pass: int = 1024):
        for name, layer in module.named_modules():
            if isinstance(layer, BATCH_NORMS):
                raise ValueError(
                    f"{name} is batch normalisation: the gradient of a frame depends on all frames of its batch, and"
                    " a group has none of its own; the noise scale can be measured with LayerNorm or GroupNorm"
                )
        self.module, self.rows_per_pass = module, rows_per_pass
        own = {} if type(module) in LAYERS else dict(module.named_parameters(recurse=False))
        self._own = [parameter for parameter in own.values() if parameter.requires_grad]
        self.in_one_pass, self._layers = True, {}
        try:
            self._layers = measurable_layers(module, besides=self._own)
        except Unmeasurable:
            self.in_one_pass = False

    def take(self, row_losses: RowLosses, groups: Sequence[slice], rows: Sequence[int] = ()) -> GroupGradients:
        """Mean gradients of the groups, of which only the norms are kept, and the mean gradient over all rows.

        Args:
            row_losses: (n,) losses of the n rows it is asked for, from one pass through the module.
            groups: slices of rows, none empty, that follow each other without gap; the first begins at 0.
            rows: single rows whose gradients' norms are wanted as well.
        """
        trained = {name: parameter for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        if self.in_one_pass and groups[-1].stop <= self.rows_per_pass:
            try:
                return self._together(row_losses, trained, groups, rows)
            except Unmeasurable:
                self.in_one_pass = False
        return self._one_by_one(row_losses, list(trained.values()), groups, rows)

    def _together(
        self, row_losses: RowLosses, trained: dict[str, nn.Parameter], groups: Sequence[slice], rows: Sequence[int]
    ) -> GroupGradients:
        total, device = groups[-1].stop, next(iter(trained.values())).device
        norms = GroupSqNorms(groups, rows, device=device)
        with watching(self._layers, norms):
            losses = row_losses(slice(0, total)) / total
        in_layers = {name: parameter for name, parameter in trained.items() if parameter not in set(self._own)}
        with norms.checked(in_layers):
            shares = dict(zip(in_layers.values(), _gradient(losses.sum(), list(in_layers.values())), strict=True))
        if norms.problem:
            raise Unmeasurable(norms.problem)
        of_groups, of_rows = norms.group_sq_norms, norms.row_sq_norms
        of_batch = float(sum(norms.batch_sq_norms.values()))
        if self._own:  # they come late in the graph, so that a group's pass is short
            own = [_gradient(losses[group].sum(), self._own) for group in groups]
            of_groups += torch.stack([_sq_norm(share) for share in own])
            of_rows += torch.stack([_sq_norm(_gradient(losses[row], self._own)) for row in rows]) if rows else 0
            whole = [torch.stack(parts).sum(0) for parts in zip(*own, strict=True)]
            of_batch += float(_sq_norm(whole))
            shares |= dict(zip(self._own, whole, strict=True))
        sizes = tuple(group.stop - group.start for group in groups)
        of_groups = of_groups * (total / torch.tensor(sizes, device=device)) ** 2
        gradient = tuple(shares[parameter] for parameter in trained.values())
        return GroupGradients(gradient, of_groups, sizes, of_rows * total**2, of_batch)

    def _one_by_one(
        self, row_losses: RowLosses, trained: list[nn.Parameter], groups: Sequence[slice], rows: Sequence[int]
    ) -> GroupGradients:
        total, sizes, sq_norms = groups[-1].stop, tuple(group.stop - group.start for group in groups), []
        gradient = [torch.zeros_like(parameter) for parameter in trained]
        for group, size in zip(groups, sizes, strict=True):
            mean = [torch.zeros_like(parameter) for parameter in trained]
            for start in range(group.start, group.stop, self.rows_per_pass):
                losses = row_losses(slice(start, min(start + self.rows_per_pass, group.stop)))
                mean = [m + g for m, g in zip(mean, _gradient(losses.sum() / size, trained), strict=True)]
            sq_norms.append(_sq_norm(mean))
            gradient = [g + m * (size / total) for g, m in zip(gradient, mean, strict=True)]
        of_rows = [_sq_norm(_gradient(row_losses([row]).sum(), trained)) for row in rows]
        none = torch.zeros(0, dtype=torch.float64, device=sq_norms[0].device)
        row_sq_norms = torch.stack(of_rows) if rows else none
        return GroupGradients(tuple(gradient), torch.stack(sq_norms), sizes, row_sq_norms, float(_sq_norm(gradient)))


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)


def _sq_norm(gradient: Sequence[Tensor]) -> Tensor:
    return torch.stack([sq_norm(part) for part in gradient]).sum()
