"""A data set as tensors on the device: three splits, drawn from by row numbers; and random crops and mirror images.

The draws of an augmentation are made on the CPU, apart from the images, so that one seed gives one augmentation on
every device, and that of many batches at once is that of each alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import pad

from rl_scaling.config import ConfigError

# "standard": every channel has mean 0 and standard deviation 1 over the training images. "unit": pixels from 0 to 1,
# which is what an autoencoder gives back.
Scale = Literal["standard", "unit"]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

# The held-out images are the same for every run: they are no part of what a seed changes.
_SPLIT_SEED = 0
# As many as the larger data sets hold out for validation.
TRAINING_SAMPLE = 5_000
# Up to here a data set is kept normalised; beyond, as bytes, in a quarter of the memory, and normalised batch by batch.
_FLOAT_BYTES = 256 * 2**20
# Of the memory that is free on a GPU.
_MOST_OF_DEVICE = 0.5


@dataclass(frozen=True)
class Pixels:
    """Images as they come from a file.

    Attributes:
        images: (n, C, H, W) uint8.
        targets: (n,) int64 classes.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, chosen: NDArray[np.int64]) -> Pixels:
        """Some of the images, in the order of `chosen`."""
        return Pixels(self.images[chosen], self.targets[chosen])


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes, as one tensor each.

    `batch` is the way to the images. The whole of a small data set is normalised once, at 4 bytes per pixel; that of a
    large one stays in bytes and each batch is normalised, which gives the same numbers to the last bit.

    Attributes:
        inputs: (n, C, H, W), float32 and normalised, or uint8 pixels.
        targets: (n,) int64 classes.
        mean, std: (C, 1, 1) float32, in pixel levels: a pixel x becomes (x - mean) / std.
        device: where batches are. `inputs` are there as well, or in the CPU's memory if they do not fit.
    """

    inputs: Tensor
    targets: Tensor
    mean: Tensor
    std: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalised images (*shape, C, H, W) and classes (*shape,) for row numbers of any shape, or a slice of rows.

        Row numbers may lie on the CPU while the images are on a GPU.
        """
        if isinstance(rows, Tensor):
            rows = rows.to(self.inputs.device)
        inputs, targets = self.inputs[rows], self.targets[rows]
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        return (inputs if inputs.is_floating_point() else _normalise(inputs, self.mean, self.std)), targets


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification task on images.

    Attributes:
        name: what it was asked for by.
        train, validation, test: disjoint.
        num_classes: classes are numbered from 0.
        image_shape: (C, H, W).
        held_out: the splits that its authors do not give and that were taken from the training images, each class in
            proportion.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    image_shape: tuple[int, int, int]
    held_out: tuple[SplitName, ...] = ()

    @cached_property
    def training_sample(self) -> Split:
        """What the training loss is measured on: all training images, or `TRAINING_SAMPLE` of them, always the same."""
        train = self.train
        if len(train) <= TRAINING_SAMPLE:
            return train
        drawn = np.random.default_rng(_SPLIT_SEED).choice(len(train), TRAINING_SAMPLE, replace=False)
        rows = torch.from_numpy(np.sort(drawn)).to(train.inputs.device)
        return replace(train, inputs=train.inputs[rows], targets=train.targets[rows])


def make_dataset(
    name: str,
    parts: Mapping[SplitName, Pixels],
    hold_out: Mapping[SplitName, int],
    *,
    num_classes: int,
    levels: int = 255,
    scale: Scale = "standard",
    device: str | torch.device = "cpu",
) -> Dataset:
    """Split, normalise and move to the device.

    Args:
        parts: what its authors give, "train" at least.
        hold_out: images to take from the training images for each split that is not in `parts`.
        levels: the brightest pixel.
        scale: how pixels are normalised; means and deviations are those of the training images, held-out ones left out.
        device: where batches are wanted.

    Raises:
        ConfigError: a class is missing from the training images, or is too rare to be held out.
    """
    parts = dict(parts)
    missing = sorted(set(range(num_classes)) - set(np.unique(parts["train"].targets).tolist()))
    if missing:
        raise ConfigError(f"{name}: no training image is of class {', '.join(map(str, missing))} of {num_classes}")
    for split, count in hold_out.items():
        parts["train"], parts[split] = _hold_out(name, parts["train"], count)
    mean, std = _levels(parts["train"].images) if scale == "standard" else (0.0, float(levels))
    channels = parts["train"].images.shape[1]
    mean, std = (
        torch.as_tensor(value, dtype=torch.float32).expand(channels).reshape(-1, 1, 1) for value in (mean, std)
    )
    total = sum(part.images.size for part in parts.values())
    splits = {split: _place(parts[split], mean, std, total, torch.device(device)) for split in SPLITS}
    return Dataset(
        name=name,
        **splits,
        num_classes=num_classes,
        image_shape=(channels, *parts["train"].images.shape[2:]),
        held_out=tuple(hold_out),
    )


def _hold_out(name: str, pixels: Pixels, count: int) -> tuple[Pixels, Pixels]:
    """What is left and `count` images, each class in proportion; the same ones each time."""
    try:
        left, taken = train_test_split(
            np.arange(len(pixels)), test_size=count, stratify=pixels.targets, random_state=_SPLIT_SEED
        )
    except ValueError as error:
        raise ConfigError(f"{name}: {count} of {len(pixels)} images cannot be held out: {error}") from error
    return pixels.rows(np.sort(left)), pixels.rows(np.sort(taken))


def _levels(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) mean and standard deviation of each channel's pixels, exact and without a wider copy of the images."""
    counts = np.zeros((images.shape[1], 256))
    for first in range(0, len(images), 4096):
        for channel, pixels in enumerate(images[first : first + 4096].swapaxes(0, 1)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    shares, levels = counts / counts.sum(1, keepdims=True), np.arange(256)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return mean, np.where(variance > 0, np.sqrt(variance), 1.0)


def _normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (pixels.float() - mean) / std


def _place(pixels: Pixels, mean: Tensor, std: Tensor, total: int, device: torch.device) -> Split:
    """Where the images go, and in which form, by the pixels of all splits together."""
    as_floats = 4 * total <= _FLOAT_BYTES
    images = torch.from_numpy(pixels.images)
    if as_floats:
        images = _normalise(images, mean, std)
    home = device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        home = device if images.nbytes <= _MOST_OF_DEVICE * free else torch.device("cpu")
    targets = torch.from_numpy(pixels.targets)
    return Split(images.to(home), targets.to(home), mean.to(device), std.to(device), device)


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What happens to each of n images.

    Attributes:
        down, right: (*shape,) int64 by how many pixels the crop is moved, from 0 to 2 * padding; the image itself is at
            `padding`.
        mirrored: (*shape,) bool, whether left and right change places.
        padding: pixels added on every side; they are 0, the mean of the training images in the "standard" scale.
    """

    down: Tensor
    right: Tensor
    mirrored: Tensor
    padding: int


def draw_augmentation(count: int, generator: torch.Generator, *, padding: int = 4, mirror: bool = True) -> Augmentation:
    """Draw for `count` images, each independent of the others.

    Args:
        padding: pixels on every side; 0 leaves images where they are.
        mirror: whether half of the images are mirrored. Digits and letters should not be.
    """
    down, right = torch.randint(2 * padding + 1, (2, count), generator=generator)
    mirrored = torch.randint(2, (count,), generator=generator).bool() & mirror
    return Augmentation(down, right, mirrored, padding)


def augment(images: Tensor, drawn: Augmentation) -> Tensor:
    """Crop and mirror (*shape, C, H, W) images, all at once on their device.

    >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> drawn = Augmentation(torch.tensor([1]), torch.tensor([2]), torch.tensor([False]), padding=1)
    >>> augment(image, drawn)
    tensor([[[[1., 0.],
              [3., 0.]]]])
    """
    height, width = images.shape[-2:]
    device = images.device
    down, right, mirrored = (part.to(device).flatten() for part in (drawn.down, drawn.right, drawn.mirrored))
    across = torch.arange(width, device=device).expand(len(right), width)
    columns = torch.where(mirrored[:, None], across.flip(1), across) + right[:, None]
    rows = torch.arange(height, device=device) + down[:, None]
    padded = pad(images, [drawn.padding] * 4).flatten(0, -4)
    numbers = torch.arange(len(padded), device=device)[:, None, None]
    # Advanced indices on both sides of the channels: they come out first, (n, H, W, C).
    cropped = padded[numbers, :, rows[:, :, None], columns[:, None, :]]
    return cropped.movedim(-1, 1).reshape(images.shape)
