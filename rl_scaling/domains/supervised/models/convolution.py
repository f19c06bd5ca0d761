"""Convolutions that start as He et al. 2015 have it, which keeps the size of signals where nothing normalises them."""

from __future__ import annotations

from torch import nn


def convolution(inputs: int, outputs: int, kernel_size: int, stride: int = 1, *, bias: bool) -> nn.Conv2d:
    """Weights of variance 2 / (inputs * kernel_size^2), biases of 0; the borders are kept."""
    layer = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
