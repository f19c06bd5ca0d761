"""Image data sets by name, whole and on the device; always there are scikit-learn's 1,797 handwritten digits."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.data.dataset import (
    Augmentation,
    Dataset,
    Pixels,
    Scale,
    Split,
    SplitName,
    augment,
    draw_augmentation,
    make_dataset,
)
from rl_scaling.domains.supervised.data.hugging_face import read_images
from rl_scaling.domains.supervised.problems import source_of

LEVELS = 16
NUM_CLASSES = 10


def read_digits() -> Pixels:
    """All of them, pixels from 0 to `LEVELS`.

    >>> read_digits().images.shape
    (1797, 1, 8, 8)
    """
    pixels, classes = load_digits(return_X_y=True)
    return Pixels(np.asarray(pixels, dtype=np.uint8).reshape(-1, 1, 8, 8), np.asarray(classes, dtype=np.int64))


_DIGITS_TEST, _DIGITS_VALIDATION = 300, 297


def load_dataset(
    name: str,
    *,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
    scale: Scale = "standard",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Dataset:
    """A data set, whole, on the device; asked for again in the same process, the same tensors.

    Args:
        name: "digits", which is always there; "mnist", "fashion-mnist", "cifar10", "svhn" or "svhn-extra" (its extra
            images with those for training); that of a problem which brings its own; or any data set of the Hugging Face
            hub with an image and a label column, as "owner/name" or "owner/name:configuration".
        device: where batches are wanted.
        folder: of Parquet files in the layout of the hub, <split>*.parquet in it or one level below; the hub is not
            asked.
        scale: "standard" (mean 0 and standard deviation 1 in every channel) or "unit" (0 to 1).
        image_column, label_column: which columns to take where a data set has several.

    Raises:
        ConfigError: the data set is not there, has no images or labels, or a class has no training image.

    >>> digits = load_dataset("digits")
    >>> len(digits.train), len(digits.validation), len(digits.test), digits.image_shape
    (1200, 297, 300, (1, 8, 8))
    """
    if name == "digits":
        if folder is not None:
            raise ConfigError("the digits come with scikit-learn: leave out the folder")
        return _digits(scale, torch.device(device))
    if (load := source_of("dataset", name)) is not None:
        return load(torch.device(device))
    return _images(name, folder, image_column, label_column, scale, torch.device(device))


@lru_cache(maxsize=4)
def _digits(scale: Scale, device: torch.device) -> Dataset:
    hold_out: dict[SplitName, int] = {"test": _DIGITS_TEST, "validation": _DIGITS_VALIDATION}
    return make_dataset(
        "digits",
        {"train": read_digits()},
        hold_out,
        num_classes=NUM_CLASSES,
        levels=LEVELS,
        scale=scale,
        device=device,
    )


@lru_cache(maxsize=2)
def _images(
    name: str,
    folder: Path | None,
    image_column: str | None,
    label_column: str | None,
    scale: Scale,
    device: torch.device,
) -> Dataset:
    found = read_images(name, folder, image_column, label_column)
    return make_dataset(name, found.parts, found.hold_out, num_classes=found.num_classes, scale=scale, device=device)


__all__ = ["Augmentation", "Dataset", "Scale", "Split", "augment", "draw_augmentation", "load_dataset"]
