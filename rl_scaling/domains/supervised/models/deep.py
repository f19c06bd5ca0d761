"""Deep convolutional networks for small images: ResNet, Wide ResNet with or without normalisation, and VGG-11.

ResNets have 6 n + 2 layers of 16, 32 and 64 channels (He et al. 2016, section 4.2). Wide ones (Zagoruyko and Komodakis
2016) have batch normalisation or SkipInit (De and Smith 2020): every residual branch is multiplied by a scalar of its
own that starts at 0, so that the network starts as its shortcuts alone and trains at any depth without normalisation.

The others are normalised over ghost batches, whose strength does not depend on the batch size, and have channels of
norm 1. What follows a batch normalisation does not depend on the length of the weights before it, but their effective
learning rate does: the gradient goes as 1 / length. Held at 1 (Zhang et al. 2019, F.2), the learning rate is what it
says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, pad, relu

from rl_scaling.domains.supervised.models.small import ImageShape, require_positive, require_size


class NormedConv2d(nn.Conv2d):
    """A convolution without bias whose weight (out, in, h, w) has |weight[i]| = 1 for every output channel i.

    The weight is a plain parameter: `project` puts it back on its spheres after every update.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1):
        super().__init__(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Divide every output channel by its norm."""
        self.weight.copy_(unit_channels(self.weight))


def unit_channels(weight: Tensor) -> Tensor:
    """(out, in, h, w) with every weight[i] divided by its Frobenius norm."""
    return weight / torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)


def project_channels(model: nn.Module) -> None:
    """Put every `NormedConv2d` of a model back on its spheres: to be called after each update of the optimiser.

    Does nothing to a model without them.
    """
    for module in model.modules():
        if isinstance(module, NormedConv2d):
            module.project()


class GhostBatchNorm2d(nn.Module):
    """While training, every `ghost_size` neighbouring images are normalised by their own statistics.

    For images x of one ghost batch, y = weight (x - mean) / sqrt(var + eps) + bias, channel by channel. A last ghost
    batch that is not full has the rest; a batch smaller than `ghost_size` is one ghost batch. In evaluation the running
    statistics stand in, as in torch's `BatchNorm2d`, which this equals where the batch is no larger than a ghost batch.

    Args:
        channels: C of (n, C, H, W) inputs.
        ghost_size: images that share their statistics.
        momentum: of the running statistics; an update moves them by the mean over its ghost batches.
        eps: added to the variance.

    Raises:
        ConfigError: `ghost_size` is below 1.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, ghost_size: int = 32, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        require_positive(ghost_size=[ghost_size])
        self.ghost_size, self.momentum, self.eps = ghost_size, momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, C, H, W) to the same shape."""
        if not self.training:
            return batch_norm(inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        full = len(inputs) - len(inputs) % self.ghost_size
        parts = [self._normalise(part) for part in (inputs[:full], inputs[full:]) if len(part)]
        self._follow(torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts]))
        return parts[0][0] if len(parts) == 1 else torch.cat([part[0] for part in parts])

    def _normalise(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, and (ghosts, C) means and unbiased variances, of whole ghost batches or of one that is not full.

        Ghost batches become further channels of one call: (n, C, ...) is read as (size, ghosts * C, ...).
        """
        size = min(self.ghost_size, len(inputs))
        ghosts, (channels, *pixels) = len(inputs) // size, inputs.shape[1:]
        folded = inputs.reshape(ghosts, size, channels, *pixels).transpose(0, 1).reshape(size, -1, *pixels)
        mean, variance = folded.new_zeros(folded.shape[1]), folded.new_ones(folded.shape[1])
        weight, bias = self.weight.repeat(ghosts), self.bias.repeat(ghosts)
        # With a momentum of 1 the "running" statistics are those of the batch.
        outputs = batch_norm(folded, mean, variance, weight, bias, training=True, momentum=1.0, eps=self.eps)
        outputs = outputs.reshape(size, ghosts, channels, *pixels).transpose(0, 1).reshape(inputs.shape)
        return outputs, mean.view(ghosts, channels), variance.view(ghosts, channels)

    @torch.no_grad()
    def _follow(self, means: Tensor, variances: Tensor) -> None:
        self.running_mean.lerp_(means.mean(0), self.momentum)
        self.running_var.lerp_(variances.mean(0), self.momentum)


def convolution(inputs: int, outputs: int, kernel_size: int, stride: int = 1, *, bias: bool) -> nn.Conv2d:
    """Weights of variance 2 / (inputs * kernel_size^2), biases of 0; the borders are kept."""
    layer = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


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
