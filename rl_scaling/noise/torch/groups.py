"""Squared gradient norms of parts of a batch, taken while the batch's own gradient is computed.

The weight gradient of a layer is a sum over the rows of the batch of (gradient of the output) x (input). Adding it up
group by group costs no more arithmetic than adding it up at once, and each group's share shows its norm in passing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_HALF = (torch.float16, torch.bfloat16)


class PartNorms:
    """Collects, layer by layer, the squared norms of the parts' gradients of a loss that is a sum over rows.

    Args:
        groups: slices of rows that cover the batch, in order and without overlap.
        rows: single rows whose gradients are wanted as well.
        device: of the gradients.

    Attributes:
        group_sq_norms: (len(groups),) float64: |sum over the group's rows of dL/dtheta|^2.
        bias_sq_norms: (len(groups),) float64: what the biases have in that.
        row_sq_norms: (len(rows),) float64: the same as `group_sq_norms` for single rows.
    """

    def __init__(self, groups: Sequence[slice], rows: Sequence[int], device: torch.device):
        self.groups = tuple(groups)
        self._runs = _runs_of_equal_size(self.groups)
        self.rows = list(rows)
        self.group_sq_norms = torch.zeros(len(groups), dtype=torch.float64, device=device)
        self.bias_sq_norms = torch.zeros(len(groups), dtype=torch.float64, device=device)
        self.row_sq_norms = torch.zeros(len(rows), dtype=torch.float64, device=device)

    def reset(self) -> None:
        """Forget the norms, for another backward pass through the same graph."""
        for norms in (self.group_sq_norms, self.bias_sq_norms, self.row_sq_norms):
            norms.zero_()

    def linear(self, layer: nn.Linear, inputs: Tensor, output_grads: Tensor) -> tuple[Tensor, Tensor]:
        """Weight gradient (out, in) and bias gradient (out,) of a layer with (n, ..., in) inputs.

        A group's norm is taken from scalar products of its positions, |sum_i s_i a_i^T|^2 = sum_ij (s_i.s_j)(a_i.a_j),
        which is cheap where they are few; from the group's gradient itself otherwise.
        """
        n, (width, height) = len(inputs), layer.weight.shape
        s, a = output_grads.reshape(n, -1, width), inputs.reshape(n, -1, height)
        few = _are_few(max(g.stop - g.start for g in self.groups) * s.shape[1], layer.weight, s.dtype)
        if few:
            weight = s.flatten(0, 1).T @ a.flatten(0, 1)
            for run, rows in self._runs:
                s_k, a_k = (part[rows].reshape(run.stop - run.start, -1, part.shape[-1]) for part in (s, a))
                self.group_sq_norms[run] += ((s_k @ s_k.mT) * (a_k @ a_k.mT)).sum((1, 2))
        else:
            share = s.new_empty(width, height)  # one for all groups: fresh memory costs more than the arithmetic saved
            shares = (torch.mm(s[g].flatten(0, 1).T, a[g].flatten(0, 1), out=share) for g in self.groups)
            weight = self._sum_of_shares(layer.weight, shares)
        bias = self._bias(layer, s.sum(1))
        if self.rows:
            s, a = s[self.rows], a[self.rows]
            self.row_sq_norms += ((s @ s.mT) * (a @ a.mT)).sum((1, 2))
        return weight, bias

    def convolution(self, layer: Convolution, inputs: Tensor, output_grads: Tensor) -> tuple[Tensor, Tensor]:
        """Weight gradient and bias gradient (out,) of a convolution with (n, channels, ...) inputs."""
        shares = (convolution_weight_gradient(layer, inputs[group], output_grads[group]) for group in self.groups)
        weight = self._sum_of_shares(layer.weight, shares)
        if self.rows:
            # One product for all rows: a call of its own for each would cost far more than its arithmetic.
            assert isinstance(layer, nn.Conv2d)
            assert not isinstance(layer.padding, str)
            patches = unfold(inputs[self.rows], layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            shares = torch.bmm(output_grads[self.rows].flatten(2), patches.transpose(1, 2))
            self.row_sq_norms += (shares**2).sum((1, 2))
        return weight, self._bias(layer, output_grads.flatten(2).sum(2))

    def affine(self, layer: nn.Module, normalised: Tensor, output_grads: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias gradient of what follows a normalisation: outputs are weight * normalised + bias.

        The weight stands for the last dimensions (LayerNorm, RMSNorm) or for channels, the second one (GroupNorm).
        """
        weight = self._sum_over_groups(_per_row(layer, output_grads * normalised), self.group_sq_norms)
        return weight, self._bias(layer, _per_row(layer, output_grads))

    def embedding(self, layer: nn.Embedding, tokens: Tensor, output_grads: Tensor) -> Tensor:
        """Weight gradient (num_embeddings, d) of a table with (n, ...) tokens."""
        sizes = torch.tensor([group.stop - group.start for group in self.groups], device=tokens.device)
        groups = torch.repeat_interleave(torch.arange(len(sizes), device=tokens.device), sizes)
        keys, sums = _sum_tokens(layer, tokens, groups, output_grads)
        self.group_sq_norms.index_add_(0, keys // layer.num_embeddings, sq_norms(sums))
        if self.rows:
            numbers = torch.arange(len(self.rows), device=tokens.device)
            rows, row_sums = _sum_tokens(layer, tokens[self.rows], numbers, output_grads[self.rows])
            self.row_sq_norms.index_add_(0, rows // layer.num_embeddings, sq_norms(row_sums))
        return torch.zeros_like(layer.weight).index_add_(0, keys % layer.num_embeddings, sums.to(layer.weight.dtype))

    def _bias(self, layer: nn.Module, per_row: Tensor) -> Tensor:
        """Bias gradient, from (n, *shape of the bias) gradients of single rows."""
        if not has_bias(layer):
            return per_row.sum(0)
        return self._sum_over_groups(per_row, self.group_sq_norms, self.bias_sq_norms)

    def _sum_of_shares(self, parameter: Tensor, shares: Iterable[Tensor]) -> Tensor:
        """The sum of the groups' gradients, of which only one is in memory at a time."""
        total, sq_norms = torch.zeros_like(parameter), []
        for share in shares:
            sq_norms.append(sq_norm(share))
            total += share
        self.group_sq_norms += torch.stack(sq_norms)
        return total

    def _sum_over_groups(self, per_row: Tensor, *into: Tensor) -> Tensor:
        shares = torch.cat(
            [per_row[rows].reshape(run.stop - run.start, -1, *per_row.shape[1:]).sum(1) for run, rows in self._runs]
        )
        for norms in into:
            norms.add_(sq_norms(shares))
        self.row_sq_norms += sq_norms(per_row[self.rows])
        return shares.sum(0)


def _runs_of_equal_size(groups: Sequence[slice]) -> list[tuple[slice, slice]]:
    """Neighbouring groups of one size, which one product can take together: which groups, and their rows."""
    runs: list[tuple[slice, slice]] = []
    for k, group in enumerate(groups):
        if runs:
            run, rows = runs[-1]
            if (
                rows.stop - rows.start == (run.stop - run.start) * (group.stop - group.start)
                and rows.stop == group.start
            ):
                runs[-1] = slice(run.start, k + 1), slice(rows.start, group.stop)
                continue
        runs.append((slice(k, k + 1), group))
    return runs


def whole_environments(num_envs: int, steps: int, num_groups: int) -> list[slice]:
    """Rows of groups of whole environments, as many environments in each as can be, for rows that are in their order.

    Args:
        num_envs: environments, each of which has `steps` rows: all rows of the first, then of the second, and so on.
        steps: rows of one environment.
        num_groups: groups; no more than there are environments are made.

    >>> whole_environments(num_envs=5, steps=10, num_groups=2)
    [slice(0, 20, None), slice(20, 50, None)]
    """
    edges = np.linspace(0, num_envs, min(num_groups, num_envs) + 1).round().astype(int) * steps
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def is_measurable(layer: nn.Module) -> bool:
    """Whether `PartNorms` knows the layer: Linear, or Conv2d with zero padding given in numbers and one group."""
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def convolution_input_gradient(layer: Convolution, inputs: Tensor, output_grads: Tensor) -> Tensor:
    """Gradient of a convolution's inputs, from the gradients of its outputs."""
    return _convolution_backward(layer, inputs, output_grads, (True, False, False))[0]


def convolution_weight_gradient(layer: Convolution, inputs: Tensor, output_grads: Tensor) -> Tensor:
    """Gradient of a convolution's weight, from its inputs and the gradients of its outputs."""
    return _convolution_backward(layer, inputs, output_grads, (False, True, False))[1]


def _convolution_backward(
    layer: Convolution, inputs: Tensor, output_grads: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.convolution_backward(
        output_grads,
        inputs,
        layer.weight.to(output_grads.dtype),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        False,
        [0] * (inputs.dim() - 2),
        layer.groups,
        wanted,
    )


def has_bias(layer: nn.Module) -> bool:
    """Whether the layer was made with a bias."""
    return "bias" in dict(layer.named_parameters(recurse=False))


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


def _are_few(positions: int, weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether scalar products of a group's positions cost less than to keep, square and add up its gradient.

    The products of p positions take p (1/out + 1/in) of the time that the gradient takes, the other way moves memory;
    the two were about even at a quarter on CPUs. In half precision the products would lose too many digits.
    """
    width, height = weight.shape
    return dtype not in _HALF and 4 * positions * (width + height) < width * height


def _per_row(layer: nn.Module, terms: Tensor) -> Tensor:
    """(n, *shape of the weight): terms summed over all positions of a row."""
    if isinstance(layer, nn.GroupNorm):
        return terms.flatten(2).sum(2) if terms.dim() > 2 else terms
    weight: Tensor = layer.get_parameter("weight")
    return terms.reshape(len(terms), -1, *weight.shape).sum(1)


def _sum_tokens(layer: nn.Embedding, tokens: Tensor, groups: Tensor, grads: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the embeddings that each group uses, (m, d), under (m,) keys group * num_embeddings + token."""
    keys = (groups.reshape(-1, *[1] * (tokens.dim() - 1)) * layer.num_embeddings + tokens).flatten()
    grads = grads.reshape(-1, layer.embedding_dim).to(_wide_dtype(grads))
    if layer.padding_idx is not None:
        used = tokens.flatten() != layer.padding_idx
        keys, grads = keys[used], grads[used]
    unique, inverse = keys.unique(return_inverse=True)
    return unique, grads.new_zeros(len(unique), layer.embedding_dim).index_add_(0, inverse, grads)
