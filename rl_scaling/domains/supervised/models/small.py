"""Small networks: fully connected, the Simple CNN, and the deep autoencoder; and what models ask of their images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rl_scaling.config import ConfigError

ImageShape = tuple[int, int, int]


def require_size(model: str, image_shape: ImageShape, smallest: int) -> None:
    """Refuse images with fewer pixels on a side than the model halves away.

    Raises:
        ConfigError: they are too small.
    """
    _, height, width = image_shape
    if min(height, width) < smallest:
        raise ConfigError(
            f"model {model!r} needs images of {smallest} x {smallest} pixels or more, not {height} x {width}; use mlp"
        )


def require_positive(**sizes: Sequence[int]) -> None:
    """Refuse layers without units.

    Raises:
        ConfigError: a size below 1.
    """
    for name, values in sizes.items():
        if not all(value >= 1 for value in values):
            raise ConfigError(f"{name} is {list(values)}: give sizes of 1 or more")


Activation = Literal["relu", "tanh"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(
    image_shape: ImageShape, num_classes: int, *, hidden: Sequence[int] = (64, 64), activation: Activation = "relu"
) -> nn.Sequential:
    """Linear layers of `hidden` units with an activation after each, and logits.

    8,970 parameters for the digits: 64 x 64 + 64, again, and 64 x 10 + 10.
    """
    require_positive(hidden=hidden)
    widths = [math.prod(image_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))


def simple_cnn(
    image_shape: ImageShape,
    num_classes: int,
    *,
    channels: Sequence[int] = (32, 64),
    hidden: int = 1024,
    dropout: float = 0.0,
) -> nn.Sequential:
    """5 x 5 convolutions with the borders kept, each followed by a 2 x 2 maximum; a hidden layer; logits.

    Args:
        image_shape: (C, H, W), 4 x 4 pixels or more.
        dropout: probability with which its units are dropped: 0 in Zhang et al., 0.4 in Shallue et al.
    """
    require_size("cnn", image_shape, 2 ** len(channels))
    require_positive(channels=channels, hidden=[hidden])
    depth, height, width = image_shape
    layers: list[nn.Module] = []
    for filters in channels:
        layers += [nn.Conv2d(depth, filters, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        depth, height, width = filters, height // 2, width // 2
    layers += [nn.Flatten(), nn.Linear(depth * height * width, hidden), nn.ReLU()]
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(hidden, num_classes))


class Autoencoder(nn.Module):
    """Fully connected layers down to a code and, mirrored, up again; the code is linear.

    Its data are images in the "unit" scale of `load_dataset`: pixels from 0 to 1.

    Args:
        image_shape: (C, H, W).
        hidden: units of the layers down to the code, which is the last.
        activation: after every layer but the code and the last.
    """

    def __init__(self, image_shape: ImageShape, hidden: Sequence[int], activation: Activation):
        super().__init__()
        widths = [math.prod(image_shape), *hidden]
        widths += widths[-2::-1]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            layers.append(nn.Linear(before, after))
            if number not in (len(hidden), len(widths) - 1):
                layers.append(ACTIVATIONS[activation]())
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, C, H, W) logits of the pixels: the reconstruction is their sigmoid."""
        return self.layers(inputs.flatten(1)).reshape(inputs.shape)

    @staticmethod
    def loss(outputs: Tensor, inputs: Tensor) -> Tensor:
        """Mean over images of the cross-entropy of their pixels, summed over an image, in nats."""
        return binary_cross_entropy_with_logits(outputs, inputs, reduction="sum") / len(inputs)


def autoencoder(
    image_shape: ImageShape,
    _num_classes: int,
    *,
    hidden: Sequence[int] = (1000, 500, 250, 30),
    activation: Activation = "tanh",
) -> Autoencoder:
    """784-1000-500-250-30-250-500-1000-784 for MNIST; classes are not used."""
    require_positive(hidden=hidden)
    return Autoencoder(image_shape, hidden, activation)
