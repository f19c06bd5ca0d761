"""Standard augmentation of small images: a random crop after padding, and a random mirror image.

The draws are made on the CPU, apart from the images, so that one seed gives one augmentation on every device, and that
of many batches at once is that of each alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


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
        count: images.
        generator: on the CPU.
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
