"""VGG-11 for small images (Simonyan and Zisserman 2015; Zhang et al. 2019, F.2)."""

from __future__ import annotations

from torch import nn

from rl_scaling.domains.supervised.models.channel_norm import NormedConv2d
from rl_scaling.domains.supervised.models.ghost_batch_norm import GhostBatchNorm2d
from rl_scaling.domains.supervised.models.shapes import ImageShape, require_size

# Channels of the convolutions; a 2 x 2 maximum ends each stage.
_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def vgg11(image_shape: ImageShape, num_classes: int, *, ghost_size: int = 32) -> nn.Sequential:
    """Eight convolutions of unit channels with ghost batch normalisation, and one linear layer.

    The image is halved five times: 32 x 32 pixels become one. What is left of a larger one is averaged.
    """
    require_size("vgg11", image_shape, 2 ** len(_STAGES))
    before, layers = image_shape[0], list[nn.Module]()
    for stage in _STAGES:
        for channels in stage:
            layers += [NormedConv2d(before, channels), GhostBatchNorm2d(channels, ghost_size), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))
