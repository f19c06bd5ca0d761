"""Gradients of one layer's weight and bias, added up group by group: the arithmetic for each kind of layer.

The weight gradient of a layer is a sum over the rows of the batch of (gradient of the output) x (input). Adding it up
group by group costs no more arithmetic than adding it up at once, and each group's share shows its norm in passing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_HALF = (torch.float16, torch.bfloat16)


class LearnedConstant(nn.Module):
    """A parameter as a layer: gives the same learned numbers for every row, whatever the inputs.

    So that what a model learns beside its layers, such as a policy's standard deviations, can be measured like them.

    Args:
        start: (d,) what it gives at first.
    """

    def __init__(self, start: Tensor):
        super().__init__()
        self.weight = nn.Parameter(start.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, d) for (n, ...) inputs."""
        return self.weight.repeat(len(inputs), 1)


@dataclass(frozen=True)
class Share:
    """Gradient of one parameter, and the squared norms of what groups and single rows have in it.

    Attributes:
        gradient: sum over all rows.
        group_sq_norms: (k,) float64.
        row_sq_norms: (m,) float64.
    """

    gradient: Tensor
    group_sq_norms: Tensor
    row_sq_norms: Tensor


class Groups:
    """How the rows of a batch are divided.

    Args:
        slices: of rows; they cover the batch, in order and without overlap.
        rows: single rows whose norms are wanted as well.

    Attributes:
        runs: neighbouring groups of one size, which one product can take together: which groups, and their rows.
    """

    def __init__(self, slices: Sequence[slice], rows: Sequence[int] = ()):
        self.slices, self.rows = tuple(slices), list(rows)
        self.sizes = tuple(group.stop - group.start for group in self.slices)
        self.runs: list[tuple[slice, slice]] = []
        for k, (group, size) in enumerate(zip(self.slices, self.sizes, strict=True)):
            if k and size == self.sizes[k - 1]:
                run, rows_of_run = self.runs[-1]
                self.runs[-1] = slice(run.start, k + 1), slice(rows_of_run.start, group.stop)
            else:
                self.runs.append((slice(k, k + 1), group))

    def numbers(self, device: torch.device) -> Tensor:
        """(n,) the group of each row."""
        sizes = torch.tensor(self.sizes, device=device)
        return torch.repeat_interleave(torch.arange(len(sizes), device=device), sizes)

    def stacked(self, per_row: Tensor) -> list[Tensor]:
        """(groups of the run, rows of a group, ...) for each run."""
        return [per_row[rows].unflatten(0, (run.stop - run.start, self.sizes[run.start])) for run, rows in self.runs]

    def of_rows(self, per_row: Tensor) -> Share:
        """From (n, *shape) gradients of single rows."""
        shares = torch.cat([rows.sum(1) for rows in self.stacked(per_row)])
        return Share(shares.sum(0), sq_norms(shares), self.single(sq_norms, per_row))

    def single(self, norms: Callable[..., Tensor], *of_rows: Tensor) -> Tensor:
        """(m,) `norms` of what the single rows have in (n, ...) tensors; where none are wanted it costs nothing."""
        if not self.rows:
            return of_rows[0].new_zeros(0, dtype=torch.float64)
        return norms(*(tensor[self.rows] for tensor in of_rows))

    def of_shares(self, parameter: Tensor, shares: Iterable[Tensor], row_sq_norms: Tensor) -> Share:
        """From the groups' gradients, of which only one is in memory at a time."""
        total, norms = torch.zeros_like(parameter), []
        for share in shares:
            norms.append(sq_norm(share))
            total += share
        return Share(total, torch.stack(norms), row_sq_norms)


class Layer(ABC):
    """How one kind of layer is taken apart into what is prepared for its weights, and the weights applied to that.

    Everywhere `layer` is the module, `inputs` what is prepared, (n, ...), and `grads` the gradients of the outputs.
    """

    # Whether the bias stands for channels, the second dimension, and not for the last dimensions.
    channels_second = False

    def prepared(self, layer: Any, inputs: Tensor) -> Tensor:
        """What comes before the weights: normalised inputs."""
        return inputs

    def outputs(self, layer: Any, inputs: Tensor) -> Tensor:
        """The weights applied."""
        return type(layer).forward(layer, inputs)

    @abstractmethod
    def input_gradient(self, layer: Any, inputs: Tensor, grads: Tensor) -> Tensor:
        """Gradient of the inputs."""

    @abstractmethod
    def weight(self, layer: Any, inputs: Tensor, grads: Tensor) -> Tensor:
        """Gradient of the weight."""

    def weight_by_groups(self, layer: Any, inputs: Tensor, grads: Tensor, groups: Groups) -> Share:
        """The same, added up group by group."""
        shares = (self.weight(layer, inputs[group], grads[group]) for group in groups.slices)
        row_sq_norms = groups.single(lambda x, g: self._row_sq_norms(layer, x, g), inputs, grads)
        return groups.of_shares(layer.weight, shares, row_sq_norms)

    def _row_sq_norms(self, layer: Any, inputs: Tensor, grads: Tensor) -> Tensor:
        """(m,) of the gradients of m rows."""
        rows = zip(inputs.split(1), grads.split(1), strict=True)
        return torch.stack([sq_norm(self.weight(layer, *row)) for row in rows])

    def bias(self, layer: Any, grads: Tensor) -> Tensor:
        """Gradient of the bias."""
        if self.channels_second:
            return grads.sum((0, *range(2, grads.dim())))
        return grads.sum(tuple(range(grads.dim() - layer.bias.dim())))

    def bias_by_groups(self, layer: Any, grads: Tensor, groups: Groups) -> Share:
        """The same, added up group by group."""
        return groups.of_rows(self._per_row(grads, layer.bias))

    def _per_row(self, terms: Tensor, parameter: Tensor) -> Tensor:
        """(n, *shape of the parameter): terms summed over all positions of a row."""
        if self.channels_second:
            return terms.flatten(2).sum(2) if terms.dim() > 2 else terms
        return terms.reshape(len(terms), -1, *parameter.shape).sum(1)


class _Linear(Layer):
    def input_gradient(self, layer: nn.Linear, inputs: Tensor, grads: Tensor) -> Tensor:
        return grads @ layer.weight.to(grads.dtype)

    def weight(self, layer: nn.Linear, inputs: Tensor, grads: Tensor) -> Tensor:
        if grads.dim() > 2:
            grads, inputs = grads.flatten(0, -2), inputs.flatten(0, -2)
        return grads.T @ inputs

    def weight_by_groups(self, layer: nn.Linear, inputs: Tensor, grads: Tensor, groups: Groups) -> Share:
        """A group's norm is taken from scalar products of its positions where they are few.

        |sum_i s_i a_i^T|^2 = sum_ij (s_i . s_j) (a_i . a_j); otherwise it is that of the group's gradient itself.
        """
        n, (width, height) = len(inputs), layer.weight.shape
        s, a = grads.reshape(n, -1, width), inputs.reshape(n, -1, height)
        row_sq_norms = groups.single(_product_sq_norms, s, a)
        if _are_few(max(groups.sizes) * s.shape[1], layer.weight, s.dtype):
            runs = zip(groups.stacked(s), groups.stacked(a), strict=True)
            norms = torch.cat([_product_sq_norms(s_k.flatten(1, 2), a_k.flatten(1, 2)) for s_k, a_k in runs])
            return Share(self.weight(layer, a, s), norms, row_sq_norms)
        share = s.new_empty(width, height)  # one for all groups: fresh memory costs more than the arithmetic saved
        shares = (torch.mm(s[g].flatten(0, 1).T, a[g].flatten(0, 1), out=share) for g in groups.slices)
        return groups.of_shares(layer.weight, shares, row_sq_norms)


class _Convolution(Layer):
    channels_second = True

    def input_gradient(self, layer: Any, inputs: Tensor, grads: Tensor) -> Tensor:
        return self._backward(layer, inputs, grads, (True, False, False))[0]

    def weight(self, layer: Any, inputs: Tensor, grads: Tensor) -> Tensor:
        return self._backward(layer, inputs, grads, (False, True, False))[1]

    def _row_sq_norms(self, layer: Any, inputs: Tensor, grads: Tensor) -> Tensor:
        if not isinstance(layer, nn.Conv2d) or layer.groups > 1:
            return super()._row_sq_norms(layer, inputs, grads)
        # One product for all rows: a call of its own for each would cost far more than its arithmetic.
        assert not isinstance(layer.padding, str)
        patches = functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        return sq_norms(torch.bmm(grads.flatten(2), patches.transpose(1, 2)))

    def _backward(
        self, layer: Any, inputs: Tensor, grads: Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        weight, none = layer.weight.to(grads.dtype), [0] * (inputs.dim() - 2)
        places = layer.stride, layer.padding, layer.dilation
        return torch.ops.aten.convolution_backward(
            grads, inputs, weight, None, *places, False, none, layer.groups, wanted
        )


class _Normalisation(Layer):
    """Outputs are weight * normalised inputs + bias.

    The weight stands for the last dimensions (LayerNorm, RMSNorm) or for channels, the second one (GroupNorm).
    """

    def __init__(self, normalise: Callable[[Any, Tensor], Tensor], *, channels_second: bool = False):
        self._normalise, self.channels_second = normalise, channels_second

    def prepared(self, layer: Any, inputs: Tensor) -> Tensor:
        return self._normalise(layer, inputs)

    def outputs(self, layer: Any, inputs: Tensor) -> Tensor:
        outputs = inputs * self._broadcast(layer.weight, inputs)
        if getattr(layer, "bias", None) is not None:
            outputs += self._broadcast(layer.bias, inputs)
        return outputs.to(inputs.dtype)  # as the ordinary layer, which answers in the precision it was asked in

    def input_gradient(self, layer: Any, inputs: Tensor, grads: Tensor) -> Tensor:
        return grads * self._broadcast(layer.weight, grads)

    def weight(self, layer: Any, inputs: Tensor, grads: Tensor) -> Tensor:
        return self._per_row(grads * inputs, layer.weight).sum(0)

    def weight_by_groups(self, layer: Any, inputs: Tensor, grads: Tensor, groups: Groups) -> Share:
        return groups.of_rows(self._per_row(grads * inputs, layer.weight))

    def _broadcast(self, parameter: Tensor, like: Tensor) -> Tensor:
        return parameter.reshape(-1, *[1] * (like.dim() - 2)) if self.channels_second else parameter


class _Constant(Layer):
    """Outputs are the weight, one copy for each row."""

    def input_gradient(self, layer: LearnedConstant, inputs: Tensor, grads: Tensor) -> Tensor:
        return torch.zeros_like(inputs)

    def weight(self, layer: LearnedConstant, inputs: Tensor, grads: Tensor) -> Tensor:
        return grads.sum(0)

    def weight_by_groups(self, layer: LearnedConstant, inputs: Tensor, grads: Tensor, groups: Groups) -> Share:
        return groups.of_rows(grads)


class _Embedding(Layer):
    """Inputs are tokens, (n, ...)."""

    def input_gradient(self, layer: nn.Embedding, inputs: Tensor, grads: Tensor) -> Tensor:
        return inputs  # whole numbers have no gradient: never asked for

    def weight(self, layer: nn.Embedding, inputs: Tensor, grads: Tensor) -> Tensor:
        padding = -1 if layer.padding_idx is None else layer.padding_idx
        return torch.ops.aten.embedding_dense_backward(grads, inputs, layer.num_embeddings, padding, False)

    def weight_by_groups(self, layer: nn.Embedding, inputs: Tensor, grads: Tensor, groups: Groups) -> Share:
        of_groups = self._sq_norms(layer, groups.numbers(inputs.device), inputs, grads)
        of_rows = groups.single(lambda x, g: self._row_sq_norms(layer, x, g), inputs, grads)
        return Share(self.weight(layer, inputs, grads), of_groups, of_rows)

    def _row_sq_norms(self, layer: nn.Embedding, inputs: Tensor, grads: Tensor) -> Tensor:
        return self._sq_norms(layer, torch.arange(len(inputs), device=inputs.device), inputs, grads)

    def _sq_norms(self, layer: nn.Embedding, numbers: Tensor, tokens: Tensor, grads: Tensor) -> Tensor:
        """(k,) of the gradients of k groups, whose `numbers` (n,) tell them apart."""
        keys = (numbers.reshape(-1, *[1] * (tokens.dim() - 1)) * layer.num_embeddings + tokens).flatten()
        grads = grads.reshape(-1, layer.embedding_dim).to(_wide_dtype(grads))
        if layer.padding_idx is not None:
            used = tokens.flatten() != layer.padding_idx
            keys, grads = keys[used], grads[used]
        unique, inverse = keys.unique(return_inverse=True)
        sums = grads.new_zeros(len(unique), layer.embedding_dim).index_add_(0, inverse, grads)
        norms = torch.zeros(int(numbers[-1]) + 1, dtype=torch.float64, device=sums.device)
        return norms.index_add_(0, unique // layer.num_embeddings, sq_norms(sums))


LAYERS: dict[type, Layer] = {
    nn.Linear: _Linear(),
    nn.Conv1d: _Convolution(),
    nn.Conv2d: _Convolution(),
    nn.Conv3d: _Convolution(),
    nn.Embedding: _Embedding(),
    LearnedConstant: _Constant(),
    nn.LayerNorm: _Normalisation(
        lambda layer, x: functional.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    ),
    nn.RMSNorm: _Normalisation(lambda layer, x: functional.rms_norm(x, layer.normalized_shape, None, layer.eps)),
    nn.GroupNorm: _Normalisation(
        lambda layer, x: functional.group_norm(x, layer.num_groups, None, None, layer.eps), channels_second=True
    ),
}


def sq_norm(gradient: Tensor) -> Tensor:
    """|gradient|^2 as a float64 scalar; half precision is widened, its squares would overflow.

    Added up row by row: a million float32 numbers lose 1e-7 this way, where one `vector_norm` or `dot` loses 1e-5 and a
    float64 sum takes ten times as long on a CPU.
    """
    rows = gradient.flatten(1) if gradient.dim() > 1 else gradient.reshape(1, -1)
    return torch.linalg.vector_norm(rows, dim=1, dtype=_wide_dtype(gradient)).square().sum().double()


def sq_norms(gradients: Tensor) -> Tensor:
    """(k,) squared norms of k gradients."""
    return gradients.to(_wide_dtype(gradients)).flatten(1).square().sum(1).double()


def _wide_dtype(gradient: Tensor) -> torch.dtype:
    return torch.float32 if gradient.dtype in _HALF else gradient.dtype


def _product_sq_norms(s: Tensor, a: Tensor) -> Tensor:
    """(k,) |s_k^T a_k|^2 of (k, positions, out) and (k, positions, in), from scalar products of positions."""
    return ((s @ s.mT) * (a @ a.mT)).sum((1, 2)).double()


def _are_few(positions: int, weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether scalar products of a group's positions cost less than to keep, square and add up its gradient.

    The products of p positions take p (1/out + 1/in) of the time that the gradient takes, the other way moves memory;
    the two were about even at a quarter on CPUs. In half precision the products would lose too many digits.
    """
    width, height = weight.shape
    return dtype not in _HALF and 4 * positions * (width + height) < width * height
