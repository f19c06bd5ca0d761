"""Deep networks learn something in one epoch on real digits, in the layout of the hub and the size of CIFAR-10."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.data import Dataset, load_dataset
from rl_scaling.domains.supervised.models import make_model, project_channels
from rl_scaling.domains.supervised.models.deep import GhostBatchNorm2d, NormedConv2d
from tests.domains.supervised.data.parquet import digit_pictures, write
from tests.domains.supervised.models.reference import ghost_batch_norm, train_one_epoch


def large_digits(folder: Path, images: int) -> Dataset:
    """Coloured digits of 32 x 32 pixels, as CIFAR-10 is kept."""
    pictures, labels = digit_pictures(range(images + 100))
    write(folder / "plain_text" / "train-00000-of-00001.parquet", pictures[:images], labels[:images], image="img")
    write(folder / "plain_text" / "test-00000-of-00001.parquet", pictures[images:], labels[images:], image="img")
    return load_dataset("cifar10", folder=folder)


@pytest.mark.usefixtures("offline")
def test_resnet8_learns_in_one_epoch(tmp_path: Path) -> None:
    data = large_digits(tmp_path, 1600)
    first, last = train_one_epoch(make_model("resnet8", data.image_shape, 10, seed=0), data.train)
    assert last < 0.95 * first


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["resnet32", "vgg11", "wide-resnet", "wide-resnet-skipinit"])
def test_large_models_learn_in_one_epoch(tmp_path: Path, name: str) -> None:
    data = large_digits(tmp_path, 1600)
    first, last = train_one_epoch(make_model(name, data.image_shape, 10, seed=0), data.train, crop=name == "resnet32")
    assert last < min(first, math.log(10))  # better than at the start, and than guessing


INPUTS = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(8)


def norms(model: torch.nn.Module) -> torch.Tensor:
    layers = [module for module in model.modules() if isinstance(module, NormedConv2d)]
    return torch.cat([layer.weight.flatten(1).norm(dim=1) for layer in layers])


@pytest.mark.parametrize(("name", "channels"), [("resnet32", 1136), ("vgg11", 2752)])
def test_channels_have_norm_1_at_the_start_and_after_every_update(name: str, channels: int) -> None:
    model = make_model(name, (3, 32, 32), 10, seed=0)
    assert norms(model).shape == (channels,)
    torch.testing.assert_close(norms(model), torch.ones(channels))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    cross_entropy(model(INPUTS), TARGETS).backward()
    optimizer.step()
    assert float((norms(model) - 1).abs().max().detach()) > 1e-3
    project_channels(model)
    torch.testing.assert_close(norms(model), torch.ones(channels))


def test_projection_does_not_change_what_the_network_says() -> None:
    """Batch normalisation takes the length of the weights out, up to its epsilon."""
    model = make_model("resnet32", (3, 32, 32), 10, seed=0)
    before = model(INPUTS).detach()
    for module in model.modules():
        if isinstance(module, NormedConv2d):
            module.weight.data.mul_(7)
    project_channels(model)
    torch.testing.assert_close(model(INPUTS).detach(), before, rtol=1e-4, atol=1e-5)


def test_models_without_such_layers_are_left_alone() -> None:
    model = make_model("mlp", (1, 8, 8), 10, seed=0)
    before = [parameter.clone() for parameter in model.parameters()]
    project_channels(model)
    assert all(torch.equal(left, right) for left, right in zip(before, model.parameters(), strict=True))


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
