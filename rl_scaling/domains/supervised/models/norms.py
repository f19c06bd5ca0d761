"""Normalisation whose strength does not depend on the batch size: channels of norm 1, and ghost batches.

What follows a batch normalisation does not depend on the length of the weights before it, but their effective learning
rate does: the gradient goes as 1 / length. Held at 1 (Zhang et al. 2019, F.2), the learning rate is what it says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from rl_scaling.domains.supervised.models.small import require_positive


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
