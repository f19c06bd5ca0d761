"""The deep autoencoder of Hinton and Salakhutdinov 2006, the benchmark of second-order optimisers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rl_scaling.domains.supervised.models.mlp import ACTIVATIONS, Activation
from rl_scaling.domains.supervised.models.shapes import ImageShape, require_positive


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

    @staticmethod
    def squared_error(outputs: Tensor, inputs: Tensor) -> Tensor:
        """Mean over images of |reconstruction - image|^2, which the papers report."""
        return (outputs.sigmoid() - inputs).square().sum() / len(inputs)


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
