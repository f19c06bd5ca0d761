"""Layers of one kind side by side, one for each of several models that are trained at once.

A small model spends its time on starting operations, not on arithmetic. Stacked, a layer's weights are one tensor with
a line for each model, the rows of all models pass through it together, and what an operation costs to start is paid
once. The models' own layers share that memory: each model can be used, trained and saved by itself at any time.

A stacked layer is watched as any other (`group_gradients`). Every group and every single row lies within one model; a
model whose rows are one group, none of them single, is not measured: its norm is NaN.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from rl_scaling.noise.torch.group_gradients import measurable_layers
from rl_scaling.noise.torch.layer_gradients import LAYERS, Groups, Layer, Share

# Modules without parameters that treat every row by itself: more models are more rows.
_ROW_BY_ROW = (nn.Sequential, nn.Identity, nn.ReLU, nn.Tanh)
# Rows of one model up to which one grouped convolution for all of them beats one for each (3 x 3 on 10 x 10, one
# thread: three times as fast at 4 rows, even at 12, ten times as slow at 320).
_FEW_ROWS = 12

Model = TypeVar("Model", bound=nn.Module)


class StackedLayer(nn.Module):
    """Layers of one kind and shape as one; its rows are those of the first, then those of the second, and so on.

    Args:
        layers: one `Linear` or `Conv2d` for each model; from now on their parameters are lines of this one's.

    Attributes:
        weight, bias: (models, *shape).
    """

    def __init__(self, layers: Sequence[Any]):
        super().__init__()
        self.members = tuple(layers)  # in a tuple they are no modules of this one, whose parameters are all there are
        self.weight = _shared([layer.weight for layer in layers])
        self.bias = None if layers[0].bias is None else _shared([layer.bias for layer in layers])

    def forward(self, inputs: Tensor) -> Tensor:
        """(models * n, ...) to (models * n, ...)."""
        first, by_model = self.members[0], inputs.unflatten(0, (len(self.members), -1))
        if isinstance(first, nn.Linear):
            return stacked_linear(by_model, self.weight, self.bias).flatten(0, 1)
        return stacked_convolution(first, by_model, self.weight, self.bias).flatten(0, 1)

    def by_model(self, function: Callable[..., Tensor], *rows: Tensor) -> list[Tensor]:
        """`function` of each model's own layer and rows."""
        parts = zip(*(tensor.unflatten(0, (len(self.members), -1)).unbind() for tensor in rows), strict=True)
        return [function(layer, *part) for layer, part in zip(self.members, parts, strict=True)]


def why_not_stackable(model: nn.Module) -> str:
    """Why models like this one cannot be stacked; empty where they can.

    Args:
        model: applies its modules to the rows that it is given, once each.
    """
    for name, module in model.named_modules():
        plain = type(module) in (nn.Linear, *_ROW_BY_ROW) or module is model
        plain |= type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
        plain |= type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
        if not plain:
            return f"{name} is a {type(module).__name__} of a kind that cannot be stacked"
    return ""


def stacked_model(models: Sequence[Model]) -> Model:
    """Models as one, to which the rows of the first are given, then those of the second, and so on.

    Args:
        models: one or more, alike but for the numbers in their parameters, which become lines of the stacked ones.

    Raises:
        ValueError: models of this kind cannot be stacked (`why_not_stackable`).
    """
    if problem := why_not_stackable(models[0]):
        raise ValueError(problem)
    layers = [measurable_layers(model) for model in models]
    # A copy of the first model in which each layer's place is taken by the stacked one.
    replaced = {id(layer): StackedLayer([own[name] for own in layers]) for name, layer in layers[0].items()}
    return copy.deepcopy(models[0], dict(replaced))


def stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(models, n, in) to (models, n, out), with weights (models, out, in) and biases (models, out)."""
    return torch.bmm(inputs, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), inputs, weight.mT)


def stacked_convolution(layer: nn.Conv2d, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolutions of one kind on (models, n, channels, height, width), each with its own weights and images.

    Args:
        layer: says stride, padding and dilation.
        inputs: images.
        weight: (models, out, in, height, width).
        bias: (models, out), if any.
    """
    models, n = inputs.shape[:2]
    assert not isinstance(layer.padding, str)
    options = layer.stride, layer.padding, layer.dilation
    if n > _FEW_ROWS:
        biases = [None] * models if bias is None else bias.unbind()
        parts = zip(inputs.unbind(), weight.unbind(), biases, strict=True)
        return torch.stack([conv2d(images, w, b, *options) for images, w, b in parts])
    bias = None if bias is None else bias.flatten()
    outputs = conv2d(_as_channels(inputs), weight.flatten(0, 1), bias, *options, groups=models)
    return outputs.unflatten(1, (models, -1)).transpose(0, 1)


def _as_channels(images: Tensor) -> Tensor:
    """(models, n, channels, ...) to (n, models * channels, ...)."""
    return images.transpose(0, 1).flatten(1, 2)


def _shared(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    stacked = nn.Parameter(torch.stack([parameter.detach() for parameter in parameters]))
    for parameter, line in zip(parameters, stacked.detach(), strict=True):
        parameter.data = line
    return stacked


class _Stacked(Layer):
    """What several layers of a kind give, from what each of them gives."""

    def input_gradient(self, layer: StackedLayer, inputs: Tensor, grads: Tensor) -> Tensor:
        if isinstance(layer.members[0], nn.Linear):
            return torch.bmm(grads.unflatten(0, (len(layer.members), -1)), layer.weight).flatten(0, 1)
        kind = _kind(layer)
        return torch.cat(layer.by_model(kind.input_gradient, inputs, grads))

    def weight(self, layer: StackedLayer, inputs: Tensor, grads: Tensor) -> Tensor:
        models = len(layer.members)
        if isinstance(layer.members[0], nn.Linear):
            return torch.bmm(grads.unflatten(0, (models, -1)).mT, inputs.unflatten(0, (models, -1)))
        if len(inputs) > models * _FEW_ROWS:
            # With the channels last the weights' gradient is up to four times as fast, the copies included.
            last = (each.contiguous(memory_format=torch.channels_last) for each in (inputs, grads))
            return torch.stack(layer.by_model(_kind(layer).weight, *last))
        images, by_channel = (_as_channels(each.unflatten(0, (models, -1))) for each in (inputs, grads))
        first, weights = layer.members[0], layer.weight.flatten(0, 1)
        places = first.stride, first.padding, first.dilation
        gradient = torch.ops.aten.convolution_backward(
            by_channel, images, weights, None, *places, False, [0, 0], models, (False, True, False)
        )[1]
        return gradient.view_as(layer.weight)

    def bias(self, layer: StackedLayer, grads: Tensor) -> Tensor:
        by_model = grads.unflatten(0, (len(layer.members), -1))
        return by_model.sum((1, *range(3, by_model.dim())))

    def weight_by_groups(self, layer: StackedLayer, inputs: Tensor, grads: Tensor, groups: Groups) -> Share:
        def whole() -> Tensor:
            return self.weight(layer, inputs, grads)

        return _shares(layer, groups, whole, _kind(layer).weight_by_groups, inputs, grads)

    def bias_by_groups(self, layer: StackedLayer, grads: Tensor, groups: Groups) -> Share:
        return _shares(layer, groups, lambda: self.bias(layer, grads), _kind(layer).bias_by_groups, grads)


def _kind(layer: StackedLayer) -> Layer:
    return LAYERS[type(layer.members[0])]


def _shares(
    layer: StackedLayer,
    groups: Groups,
    whole: Callable[[], Tensor],
    by_groups: Callable[..., Share],
    *rows: Tensor,
) -> Share:
    """The models' shares one after the other, each with its own groups; a model in one piece has the norm NaN."""
    of_model = _by_model(groups, len(layer.members), len(rows[0]) // len(layer.members))
    asked = [len(own.slices) > 1 or bool(own.rows) for own in of_model]
    together = None if all(asked) else whole()
    found: list[Share] = []

    def take(member: Any, *own: Tensor) -> Tensor:
        place = len(found)
        if asked[place]:
            found.append(by_groups(member, *own, of_model[place]))
        else:
            assert together is not None
            unknown = torch.full((1,), torch.nan, dtype=torch.float64, device=together.device)
            found.append(Share(together[place], unknown, unknown[:0]))
        return found[-1].gradient

    gradients = layer.by_model(take, *rows)
    return Share(
        torch.stack(gradients) if together is None else together,
        torch.cat([share.group_sq_norms for share in found]),
        torch.cat([share.row_sq_norms for share in found]),
    )


def _by_model(groups: Groups, models: int, n: int) -> list[Groups]:
    """The groups and rows of each model, counted from its first row.

    Raises:
        ValueError: a group with rows of two models, or rows that are not in the order of the models.
    """
    if any(group.start // n != (group.stop - 1) // n for group in groups.slices):
        raise ValueError("a group has rows of two models: give each model groups of its own")
    if [row // n for row in groups.rows] != sorted(row // n for row in groups.rows):
        raise ValueError("single rows are out of order: give those of the first model first")
    made = []
    for model in range(models):
        first = model * n
        slices = [slice(g.start - first, g.stop - first) for g in groups.slices if g.start // n == model]
        made.append(Groups(slices, [row - first for row in groups.rows if row // n == model]))
    return made


LAYERS[StackedLayer] = _Stacked()
