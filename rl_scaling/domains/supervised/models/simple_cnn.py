"""The Simple CNN of Zhang et al. 2019 (F.2) and Shallue et al. 2019: two convolutions, one hidden layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rl_scaling.domains.supervised.models.shapes import ImageShape, require_positive, require_size


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
        num_classes: number of logits.
        channels: of the two convolutions.
        hidden: units of the hidden layer.
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
