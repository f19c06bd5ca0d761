"""Wide residual networks (Zagoruyko and Komodakis 2016), with batch normalisation or with SkipInit (De and Smith 2020).

SkipInit multiplies every residual branch by a scalar of its own that starts at 0, so that the network starts as its
shortcuts alone; it trains at any depth without normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from rl_scaling.domains.supervised.models.convolution import convolution
from rl_scaling.domains.supervised.models.shapes import ImageShape, require_positive, require_size


class _Block(nn.Module):
    """x + a conv(relu(norm(conv(relu(norm(x)))))), with a = 1; or without norm and with a a parameter, at first 0.

    Where the shape changes, the shortcut is a 1 x 1 convolution of relu(norm(x)).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, skip_init: bool):
        super().__init__()
        self.first_norm = nn.Identity() if skip_init else nn.BatchNorm2d(inputs)
        self.first = convolution(inputs, outputs, 3, stride, bias=skip_init)
        self.second_norm = nn.Identity() if skip_init else nn.BatchNorm2d(outputs)
        self.second = convolution(outputs, outputs, 3, 1, bias=skip_init)
        self.shortcut = None if inputs == outputs else convolution(inputs, outputs, 1, stride, bias=skip_init)
        self.scale = nn.Parameter(torch.zeros(())) if skip_init else None

    def forward(self, inputs: Tensor) -> Tensor:
        active = relu(self.first_norm(inputs))
        branch = self.second(relu(self.second_norm(self.first(active))))
        straight = inputs if self.shortcut is None else self.shortcut(active)
        return straight + (branch if self.scale is None else self.scale * branch)


def _wide_resnet(
    name: str, image_shape: ImageShape, num_classes: int, depth: int, width: int, dropout: float
) -> nn.Sequential:
    require_size(name, image_shape, 8)
    require_positive(depth=[(depth - 4) // 6], width=[width])
    skip_init, before = name == "wide-resnet-skipinit", 16
    layers: list[nn.Module] = [convolution(image_shape[0], before, 3, 1, bias=skip_init)]
    for stage, channels in enumerate((16 * width, 32 * width, 64 * width)):
        for number in range((depth - 4) // 6):
            layers.append(_Block(before, channels, 2 if stage and number == 0 else 1, skip_init))
            before = channels
    if not skip_init:
        layers.append(nn.BatchNorm2d(before))
    layers += [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(before, num_classes))


def wide_resnet(image_shape: ImageShape, num_classes: int, *, depth: int = 16, width: int = 4) -> nn.Sequential:
    """Wide-ResNet-`depth`-`width` with batch normalisation, by default the 16-4 of Smith et al. 2020."""
    return _wide_resnet("wide-resnet", image_shape, num_classes, depth, width, 0.0)


def wide_resnet_skip_init(
    image_shape: ImageShape, num_classes: int, *, depth: int = 16, width: int = 4, dropout: float = 0.0
) -> nn.Sequential:
    """The same with SkipInit: no normalisation, biases, a scalar for every branch; dropout before the last layer."""
    return _wide_resnet("wide-resnet-skipinit", image_shape, num_classes, depth, width, dropout)
