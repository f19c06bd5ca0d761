from __future__ import annotations

import pytest
import torch
from torch import nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.models.ghost_batch_norm import GhostBatchNorm2d
from tests.domains.supervised.models.reference import ghost_batch_norm


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 13])
def test_every_ghost_batch_is_normalised_by_itself(count: int) -> None:
    inputs = torch.randn(count, 5, 3, 2, generator=torch.Generator().manual_seed(count)) * 3 + 1
    layer = GhostBatchNorm2d(5, ghost_size=4)
    torch.testing.assert_close(layer(inputs), ghost_batch_norm(inputs, 4, layer.eps))


def test_gradients_are_those_of_the_plain_version() -> None:
    inputs = torch.randn(7, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.randn(7, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer = GhostBatchNorm2d(2, ghost_size=4).double()
    (got,) = torch.autograd.grad((layer(inputs) * weights).sum(), inputs)
    (expected,) = torch.autograd.grad((ghost_batch_norm(inputs, 4, layer.eps) * weights).sum(), inputs)
    torch.testing.assert_close(got, expected)


def test_a_batch_no_larger_than_a_ghost_batch_is_torchs_batch_norm() -> None:
    ours, torchs = GhostBatchNorm2d(3, ghost_size=8), nn.BatchNorm2d(3)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 3, 4, 4, generator=generator)
    for step in range(4):
        inputs = torch.randn(6, 3, 4, 4, generator=generator) + step
        torch.testing.assert_close(ours(inputs), torchs(inputs))
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)
    torch.testing.assert_close(ours.running_var, torchs.running_var)
    torch.testing.assert_close(ours.eval()(inputs), torchs.eval()(inputs))


def test_running_statistics_do_not_depend_on_the_batch_size() -> None:
    """They follow the mean over ghost batches, so what they converge to is that of ghost batches of the same size."""
    inputs = torch.randn(16, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    whole, parts = (GhostBatchNorm2d(2, ghost_size=4, momentum=0.5) for _ in range(2))
    whole(inputs)
    for _ in range(60):
        whole(inputs)
    means, variances = [], []
    for part in inputs.split(4):
        parts.momentum = 1.0
        parts(part)
        means.append(parts.running_mean.clone())
        variances.append(parts.running_var.clone())
    torch.testing.assert_close(whole.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(whole.running_var, torch.stack(variances).mean(0))


def test_ghost_batches_need_an_image() -> None:
    with pytest.raises(ConfigError, match="ghost_size"):
        GhostBatchNorm2d(3, ghost_size=0)
