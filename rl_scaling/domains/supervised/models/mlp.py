"""A fully connected network for small images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from rl_scaling.domains.supervised.models.shapes import ImageShape, require_positive

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
