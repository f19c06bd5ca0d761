"""Every model learns something in one epoch on real digits, in the layout of the hub where it needs larger images."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_scaling.domains.supervised.data import Dataset, Split, augment, draw_augmentation, load_dataset
from rl_scaling.domains.supervised.models import make_model, project_channels
from rl_scaling.domains.supervised.models.autoencoder import Autoencoder
from tests.domains.supervised.data.parquet import digit_pictures, write


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    outputs = model(inputs)
    return model.loss(outputs, inputs) if isinstance(model, Autoencoder) else cross_entropy(outputs, targets)


def train_one_epoch(model: nn.Module, data: Split, *, crop: bool = False) -> tuple[float, float]:
    """Mean loss of the first and last quarter of one epoch of Adam with a learning rate of 0.001 and batches of 16."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for rows in torch.randperm(len(data), generator=generator).split(16):
        inputs, targets = data.batch(rows)
        if crop:
            inputs = augment(inputs, draw_augmentation(len(rows), generator, mirror=False))
        loss = loss_of(model, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        project_channels(model)
        losses.append(float(loss.detach()))
    quarter = len(losses) // 4
    return sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter


def large_digits(folder: Path, images: int) -> Dataset:
    """Coloured digits of 32 x 32 pixels, as CIFAR-10 is kept."""
    pictures, labels = digit_pictures(range(images + 100))
    write(folder / "plain_text" / "train-00000-of-00001.parquet", pictures[:images], labels[:images], image="img")
    write(folder / "plain_text" / "test-00000-of-00001.parquet", pictures[images:], labels[images:], image="img")
    return load_dataset("cifar10", folder=folder)


@pytest.mark.parametrize(("name", "share"), [("mlp", 0.6), ("cnn", 0.6), ("small-cnn", 0.95)])
def test_models_for_the_digits_learn_in_one_epoch(name: str, share: float) -> None:
    digits = load_dataset("digits")
    first, last = train_one_epoch(make_model(name, digits.image_shape, 10, seed=0), digits.train)
    assert last < share * first


def test_dropout_is_the_simple_cnns_of_shallue() -> None:
    digits = load_dataset("digits")
    model = make_model("cnn", digits.image_shape, 10, seed=0, dropout=0.4)
    inputs, _ = digits.train.batch(slice(0, 4))
    assert not torch.equal(model(inputs), model(inputs))
    assert torch.equal(model.eval()(inputs), model(inputs))
    first, last = train_one_epoch(model.train(), digits.train)
    assert last < 0.6 * first


def test_the_autoencoder_learns_in_one_epoch() -> None:
    digits = load_dataset("digits", scale="unit")
    model = make_model("autoencoder", digits.image_shape, 10, seed=0)
    assert isinstance(model, Autoencoder)
    inputs, _ = digits.validation.batch(slice(None))
    before = float(model.squared_error(model(inputs), inputs).detach())
    first, last = train_one_epoch(model, digits.train)
    assert last < 0.95 * first
    assert float(model.squared_error(model(inputs), inputs).detach()) < 0.8 * before


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
