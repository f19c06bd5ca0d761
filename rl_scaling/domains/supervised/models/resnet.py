"""Residual networks for small images (He et al. 2016, section 4.2): 6 n + 2 layers of 16, 32 and 64 channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import pad, relu

from rl_scaling.domains.supervised.models.channel_norm import NormedConv2d
from rl_scaling.domains.supervised.models.convolution import convolution
from rl_scaling.domains.supervised.models.ghost_batch_norm import GhostBatchNorm2d
from rl_scaling.domains.supervised.models.shapes import ImageShape, require_size

CHANNELS = (16, 32, 64)


def shortcut(inputs: Tensor, channels: int, stride: int) -> Tensor:
    """The parameter-free shortcut (option A): every `stride`-th pixel, and zeros for the channels that are new."""
    return pad(inputs[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, channels - inputs.shape[1]))


class Stages(nn.Sequential):
    """Three stages of residual blocks, the first block of the second and third at half the resolution."""

    def __init__(self, blocks: int, block: Callable[[int, int, int], nn.Module]):
        before, layers = CHANNELS[0], list[nn.Module]()
        for stage, channels in enumerate(CHANNELS):
            for number in range(blocks):
                layers.append(block(before, channels, 2 if stage and number == 0 else 1))
                before = channels
        super().__init__(*layers)


class PlainBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))): the improved block of He et al. 2016b, without normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self._outputs, self._stride = outputs, stride
        self.first = convolution(inputs, outputs, 3, stride, bias=True)
        self.second = convolution(outputs, outputs, 3, bias=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return shortcut(inputs, self._outputs, self._stride) + self.second(relu(self.first(relu(inputs))))


class NormedBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))): the block of He et al. 2016."""

    def __init__(self, inputs: int, outputs: int, stride: int, ghost_size: int):
        super().__init__()
        self._outputs, self._stride = outputs, stride
        self.first = NormedConv2d(inputs, outputs, stride=stride)
        self.first_norm = GhostBatchNorm2d(outputs, ghost_size)
        self.second = NormedConv2d(outputs, outputs)
        self.second_norm = GhostBatchNorm2d(outputs, ghost_size)

    def forward(self, inputs: Tensor) -> Tensor:
        inner = self.second_norm(self.second(relu(self.first_norm(self.first(inputs)))))
        return relu(shortcut(inputs, self._outputs, self._stride) + inner)


def _head(num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], num_classes)]


def resnet8(image_shape: ImageShape, num_classes: int) -> nn.Sequential:
    """Seven convolutions with biases and a linear layer, no normalisation (Zhang et al. 2019, F.2)."""
    require_size("resnet8", image_shape, 8)
    start = convolution(image_shape[0], CHANNELS[0], 3, bias=True)
    return nn.Sequential(start, Stages(1, PlainBlock), nn.ReLU(), *_head(num_classes))


def resnet32(image_shape: ImageShape, num_classes: int, *, ghost_size: int = 32) -> nn.Sequential:
    """31 convolutions of unit channels with ghost batch normalisation, and a linear layer (Zhang et al. 2019, F.2)."""
    require_size("resnet32", image_shape, 8)
    start = [NormedConv2d(image_shape[0], CHANNELS[0]), GhostBatchNorm2d(CHANNELS[0], ghost_size), nn.ReLU()]
    stages = Stages(5, partial(NormedBlock, ghost_size=ghost_size))
    return nn.Sequential(*start, stages, *_head(num_classes))
