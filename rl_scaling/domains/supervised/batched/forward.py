"""The forward pass and the losses of many models of one kind at once, each with its own parameters and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d, cross_entropy

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.models.small import Autoencoder

# Parameters by name, each (trials, *shape), and inputs (trials, batch, *shape) to outputs (trials, batch, *shape).
Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]

# Layers that treat every image by itself and have no parameters: trials are just more images.
_PLAIN = (nn.ReLU, nn.Tanh, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Identity)
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_EXACT = (nn.Flatten, nn.Linear, nn.Conv2d, *_PLAIN)


def require_stackable(model: nn.Module) -> None:
    """Refuse a model that would not train together with others as it trains alone.

    Raises:
        ConfigError: it keeps statistics between batches (batch normalisation), or draws while it trains (dropout).
    """
    for module in model.modules():
        if isinstance(module, _DROPOUT) and module.p > 0:
            raise ConfigError(
                "models with dropout are trained one at a time: their draws would not be those of each alone"
            )
        if next(module.buffers(recurse=False), None) is not None:
            raise ConfigError(
                f"models with {type(module).__name__} are trained one at a time: it keeps statistics between batches"
            )


def stacked_forward(model: nn.Module) -> Forward:
    """The forward pass of many models like this one, whose own parameters are not used.

    A sequence of common layers goes layer by layer: one batched product for a linear layer, one grouped convolution for
    a convolution. Any other model goes by `torch.func.vmap`, which does the same at a higher price per layer.

    Raises:
        ConfigError: see `require_stackable`.
    """
    require_stackable(model)
    if isinstance(model, nn.Sequential) and all(_is_known(layer) for layer in model):
        return _layer_by_layer(model)

    def one(parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return functional_call(model, parameters, (inputs,))

    mapped = vmap(one)
    return lambda parameters, inputs: mapped(dict(parameters), inputs)


def _is_known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and type(layer) is nn.Conv2d
    if isinstance(layer, nn.Flatten):
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in _EXACT


def _layer_by_layer(model: nn.Sequential) -> Forward:
    layers = list(model.named_children())

    def forward(parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        trials, batch = inputs.shape[:2]
        for name, layer in layers:
            if isinstance(layer, nn.Flatten):
                inputs = inputs.reshape(trials, batch, -1)
            elif isinstance(layer, nn.Linear):
                inputs = _linear(parameters, name, inputs)
            elif isinstance(layer, nn.Conv2d):
                inputs = _convolution(layer, parameters, name, inputs)
            else:
                outputs = layer(inputs.reshape(trials * batch, *inputs.shape[2:]))
                inputs = outputs.reshape(trials, batch, *outputs.shape[1:])
        return inputs

    return forward


def _linear(parameters: Mapping[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    weight, bias = parameters[f"{name}.weight"].mT, parameters.get(f"{name}.bias")
    return torch.bmm(inputs, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), inputs, weight)


def _convolution(layer: nn.Conv2d, parameters: Mapping[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    """One convolution in as many groups as there are trials: (batch, trials * channels, ...)."""
    trials, batch = inputs.shape[:2]
    images = inputs.transpose(0, 1).reshape(batch, -1, *inputs.shape[3:])
    weight, bias = parameters[f"{name}.weight"].flatten(0, 1), parameters.get(f"{name}.bias")
    bias = None if bias is None else bias.flatten()
    outputs = conv2d(images, weight, bias, layer.stride, layer.padding, layer.dilation, groups=trials)
    return outputs.reshape(batch, trials, -1, *outputs.shape[2:]).transpose(0, 1)


def example_losses(
    model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """(n,) losses in nats: of an autoencoder's reconstructions, of other models' logits.

    Args:
        model: what gave the outputs.
        outputs: (n, num_classes) logits, or (n, C, H, W) of an autoencoder.
        inputs: (n, C, H, W).
        targets: (n,) classes.
        label_smoothing: share of the target that goes to all classes alike.
    """
    if isinstance(model, Autoencoder):
        return binary_cross_entropy_with_logits(outputs, inputs, reduction="none").flatten(1).sum(1)
    return cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)
