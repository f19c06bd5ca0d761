"""Convolutions whose channels are kept at norm 1 (Zhang et al. 2019, F.2), in place of weight decay.

What follows a batch normalisation does not depend on the length of the weights before it, but their effective learning
rate does: the gradient goes as 1 / length. Held at 1, the learning rate is what it says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
