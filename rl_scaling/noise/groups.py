"""Squared gradient norms of parts of a batch, taken while the batch's own gradient is computed.

The weight gradient of a layer is a sum over the rows of the batch of (gradient of the output) x (input). Adding it up
group by group costs no more arithmetic than adding it up at once, and each group's share shows its norm in passing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold


class PartNorms:
    """Collects, layer by layer, the squared norms of the parts' gradients of a loss that is a sum over rows.

    Args:
        groups: slices of rows that cover the batch, in order and without overlap.
        rows: single rows whose gradients are wanted as well.
        device: of the gradients.

    Attributes:
        group_sq_norms: (len(groups),) float64: |sum over the group's rows of dL/dtheta|^2.
        row_sq_norms: (len(rows),) float64: the same for single rows.
    """

    def __init__(self, groups: Sequence[slice], rows: Sequence[int], device: torch.device):
        self.groups = tuple(groups)
        self.rows = list(rows)
        self.group_sq_norms = torch.zeros(len(groups), dtype=torch.float64, device=device)
        self.row_sq_norms = torch.zeros(len(rows), dtype=torch.float64, device=device)

    def reset(self) -> None:
        """Forget the norms, for another backward pass through the same graph."""
        self.group_sq_norms.zero_()
        self.row_sq_norms.zero_()

    def linear(self, layer: nn.Linear, inputs: Tensor, output_grads: Tensor) -> tuple[Tensor, Tensor]:
        """Weight gradient (out, in) and bias gradient (out,) of a layer with (n, in) inputs.

        A group's norm is taken from its rows' scalar products, |sum_i s_i a_i^T|^2 = sum_ij (s_i.s_j)(a_i.a_j), which
        is cheap for fewer rows than the layer is wide; from its gradient itself otherwise.
        """
        for k, group in enumerate(self.groups):
            s, a = output_grads[group], inputs[group]
            if has_bias(layer):
                self.group_sq_norms[k] += _sq(s.sum(0))
            if len(s) * (s.shape[1] + a.shape[1]) < s.shape[1] * a.shape[1]:
                self.group_sq_norms[k] += ((s @ s.T) * (a @ a.T)).sum(dtype=torch.float64)
            else:
                self.group_sq_norms[k] += _sq(s.T @ a)
        s, a = output_grads[self.rows], inputs[self.rows]
        self.row_sq_norms += (s**2).sum(1) * ((a**2).sum(1) + (has_bias(layer)))
        return output_grads.T @ inputs, output_grads.sum(0)

    def conv2d(self, layer: nn.Conv2d, inputs: Tensor, output_grads: Tensor) -> tuple[Tensor, Tensor]:
        """Weight gradient and bias gradient (out,) of a convolution with (n, channels, h, w) inputs."""
        weight, bias = torch.zeros_like(layer.weight), torch.zeros_like(output_grads[0, :, 0, 0])
        bias_terms = output_grads.sum((2, 3)) if has_bias(layer) else torch.zeros_like(output_grads[:, :, 0, 0])
        for k, group in enumerate(self.groups):
            share, bias_share = (
                conv2d_weight_gradient(layer, inputs[group], output_grads[group]),
                bias_terms[group].sum(0),
            )
            self.group_sq_norms[k] += _sq(share) + _sq(bias_share)
            weight += share
            bias += bias_share
        if self.rows:
            # One product for all rows: a call of its own for each would cost far more than its arithmetic.
            assert not isinstance(layer.padding, str)
            patches = unfold(inputs[self.rows], layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            shares = torch.bmm(output_grads[self.rows].flatten(2), patches.transpose(1, 2))
            self.row_sq_norms += (shares**2).sum((1, 2)) + (bias_terms[self.rows] ** 2).sum(1)
        return weight, bias


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


def conv2d_input_gradient(layer: nn.Conv2d, inputs: Tensor, output_grads: Tensor) -> Tensor:
    """Gradient of a convolution's inputs, from the gradients of its outputs."""
    return _convolution_backward(layer, inputs, output_grads, (True, False, False))[0]


def conv2d_weight_gradient(layer: nn.Conv2d, inputs: Tensor, output_grads: Tensor) -> Tensor:
    """Gradient of a convolution's weight, from its inputs and the gradients of its outputs."""
    return _convolution_backward(layer, inputs, output_grads, (False, True, False))[1]


def _convolution_backward(
    layer: nn.Conv2d, inputs: Tensor, output_grads: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.convolution_backward(
        output_grads,
        inputs,
        layer.weight,
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        False,
        [0],
        layer.groups,
        wanted,
    )


def has_bias(layer: nn.Linear | nn.Conv2d) -> bool:
    """Whether the layer was made with a bias."""
    return "bias" in dict(layer.named_parameters(recurse=False))


def _sq(gradient: Tensor) -> Tensor:
    return (gradient**2).sum(dtype=torch.float64)
