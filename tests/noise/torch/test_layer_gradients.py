"""The arithmetic of every kind of layer against plain autograd, group by group and row by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rl_scaling.noise.torch.layer_gradients import LAYERS, Groups
from tests.noise.torch.reference import sq_norm

CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(7, 3), (7,)),
    "without bias": (nn.Linear(7, 3, bias=False), (7,)),
    "sequence": (nn.Linear(5, 4), (3, 5)),
    "wide": (nn.Linear(60, 80), (60,)),
    "conv1d": (nn.Conv1d(2, 4, 3, padding=1, groups=2), (2, 9)),
    "conv2d": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 7, 6)),
    "grouped conv2d": (nn.Conv2d(2, 4, 2, groups=2), (2, 5, 5)),
    "conv3d": (nn.Conv3d(1, 2, 2), (1, 4, 3, 3)),
    "embedding": (nn.Embedding(9, 4, padding_idx=0), (6,)),
    "layer norm": (nn.LayerNorm([4, 6]), (4, 6)),
    "rms norm": (nn.RMSNorm(6), (4, 6)),
    "group norm": (nn.GroupNorm(2, 4), (4, 3, 3)),
}


def case(name: str, rows: int) -> tuple[Any, Tensor, Tensor]:
    """A layer, its inputs and gradients of its outputs."""
    layer, shape = CASES[name]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, *shape, generator=generator, dtype=torch.float64)
    if isinstance(layer, nn.Embedding):
        inputs = torch.randint(9, (rows, *shape), generator=generator)
    outputs = layer.double()(inputs)
    return layer, inputs, torch.randn(outputs.shape, generator=generator, dtype=torch.float64)


def naive(layer: nn.Module, inputs: Tensor, grads: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad((layer(inputs) * grads).sum(), list(layer.parameters())))


@pytest.mark.parametrize("name", list(CASES))
# Groups of few rows go by scalar products, others by the gradient itself.
@pytest.mark.parametrize("size", [1, 5, 20])
def test_gradients_and_norms_equal_those_of_autograd(name: str, size: int) -> None:
    layer, inputs, grads = case(name, 42)
    kind, prepared = LAYERS[type(layer)], LAYERS[type(layer)].prepared(layer, inputs)
    slices = [slice(0, 2), *(slice(i, i + size) for i in range(2, 42, size))]
    groups = Groups(slices, [0, 7, 41])
    shares = [kind.weight_by_groups(layer, prepared, grads, groups)]
    plain = [kind.weight(layer, prepared, grads)]
    if getattr(layer, "bias", None) is not None:
        shares.append(kind.bias_by_groups(layer, grads, groups))
        plain.append(kind.bias(layer, grads))
    torch.testing.assert_close([share.gradient for share in shares], naive(layer, inputs, grads))
    torch.testing.assert_close(plain, naive(layer, inputs, grads))
    for norms, parts in (
        (torch.stack([share.group_sq_norms for share in shares]), slices),
        (torch.stack([share.row_sq_norms for share in shares]), [slice(row, row + 1) for row in groups.rows]),
    ):
        expected = [[sq_norm([g]) for g in naive(layer, inputs[part], grads[part])] for part in parts]
        torch.testing.assert_close(norms, torch.tensor(expected, dtype=torch.float64).T)
    outputs = kind.outputs(layer, prepared)
    torch.testing.assert_close(outputs, layer(inputs))
    if not isinstance(layer, nn.Embedding):
        leaf = prepared.clone().requires_grad_()
        (expected_grads,) = torch.autograd.grad((kind.outputs(layer, leaf) * grads).sum(), leaf)
        torch.testing.assert_close(kind.input_gradient(layer, prepared, grads), expected_grads)


def test_neighbouring_groups_of_one_size_go_together() -> None:
    groups = Groups([slice(0, 2), slice(2, 4), slice(4, 7), slice(7, 9)])
    assert groups.runs == [
        (slice(0, 2), slice(0, 4)),
        (slice(2, 3), slice(4, 7)),
        (slice(3, 4), slice(7, 9)),
    ]
    assert groups.numbers(torch.device("cpu")).tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3]
