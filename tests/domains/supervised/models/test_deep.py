"""Deep networks learn something in one epoch on real digits, in the layout of the hub and the size of CIFAR-10."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rl_scaling.domains.supervised.data import Dataset, load_dataset
from rl_scaling.domains.supervised.models import make_model
from tests.domains.supervised.data.parquet import digit_pictures, write
from tests.domains.supervised.models.reference import train_one_epoch


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
