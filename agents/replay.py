"""Differentiating the acting pass without running it again.

While acting, one small pass per step, every layer's output is remembered. For the update the steps are put together
to one large batch and the network is run once more in name only: layers with weights hand out what they gave
before, everything between them (activations, scaling) is recomputed at next to no cost, and the backward
pass runs over the whole batch at once, which is faster than through the many small passes. The gradient is the same.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rl_scaling.config import ConfigError
from rl_scaling.noise.groups import PartNorms, convolution_input_gradient, convolution_weight_gradient, is_measurable


class Tape:
    """Remembers the outputs of a network's layers while it acts, and replays them for the update.

    Args:
        network: all its parameters belong to Linear and Conv2d layers, each of which is used once per pass.

    Raises:
        ConfigError: the network has other parameters, or an unusual convolution.
    """

    def __init__(self, network: nn.Module):
        self.network = network
        self._layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        for layer in self._layers:
            if not is_measurable(layer):
                raise ConfigError(f"{layer}: only zero padding given in numbers, and one group, are supported")
        covered = {id(p) for layer in self._layers for p in layer.parameters()}
        for name, parameter in network.named_parameters():
            if id(parameter) not in covered:
                raise ConfigError(f"parameter {name} is in no Linear or Conv2d layer: such a network is not supported")
        self._outputs: dict[nn.Module, list[Tensor]] = {}

    @contextmanager
    def recording(self) -> Generator[None]:
        """Inside, passes through the network are remembered (from the beginning) and not differentiated."""
        self._outputs = {layer: [] for layer in self._layers}
        handles = [layer.register_forward_hook(self._remember) for layer in self._layers]
        try:
            with torch.no_grad():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _remember(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self._outputs[layer].append(output)

    def replay(self, observations: list[Tensor], norms: PartNorms | None = None) -> tuple[Tensor, Tensor]:
        """The network's outputs for the remembered passes, differentiable.

        Args:
            observations: what the passes were given, each (n, *shape).
            norms: collects norms of parts of the gradient when it is taken; rows are environment by environment.

        Returns:
            Logits (n * steps, num_actions) and values (n * steps,): all steps of the first environment, then of the
            second, and so on.

        Raises:
            ConfigError: a layer was not used just once in every pass.
        """
        for layer, outputs in self._outputs.items():
            if len(outputs) != len(observations):
                raise ConfigError(
                    f"{layer} is used {len(outputs)} times in {len(observations)} passes: it must be once"
                )
        with self._handing_out(norms):
            logits, values = self.network(_by_environment(observations))
        self._outputs = {}
        return logits, values

    @contextmanager
    def _handing_out(self, norms: PartNorms | None) -> Generator[None]:
        replays = {nn.Linear: _ReplayLinear, nn.Conv2d: _ReplayConv2d}
        try:
            for layer in self._layers:
                output = _by_environment(self._outputs[layer])
                replay = next(function for kind, function in replays.items() if isinstance(layer, kind))
                # An instance attribute hides the class's forward until it is deleted again.
                vars(layer)["forward"] = _Handing(replay, layer, output, norms)
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)


class _Handing:
    """Stands in for one layer's forward."""

    def __init__(self, function: Any, layer: nn.Module, output: Tensor, norms: PartNorms | None):
        self.arguments = function, layer, output, norms

    def __call__(self, inputs: Tensor) -> Tensor:
        function, layer, output, norms = self.arguments
        return function.apply(inputs, layer.weight, layer.bias, layer, output, norms)


def _by_environment(steps: list[Tensor]) -> Tensor:
    """(n, ...) for each step to (n * steps, ...)."""
    return torch.stack(steps, dim=1).flatten(0, 1)


class _ReplayLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, layer: nn.Linear, output: Tensor, norms: Any
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.layer, ctx.norms = layer, norms
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (grad,) = grad_outputs
        inputs, weight = ctx.saved_tensors
        to_inputs = grad @ weight if ctx.needs_input_grad[0] else None
        parts = ctx.norms.linear(ctx.layer, inputs, grad) if ctx.norms else (grad.T @ inputs, grad.sum(0))
        return to_inputs, *_with_bias(ctx, parts), None, None, None


class _ReplayConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, layer: nn.Conv2d, output: Tensor, norms: Any
    ) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.layer, ctx.norms = layer, norms
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (grad,) = grad_outputs
        (inputs,) = ctx.saved_tensors
        layer: nn.Conv2d = ctx.layer
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = convolution_input_gradient(layer, inputs, grad)
        if ctx.norms:
            parts = ctx.norms.convolution(layer, inputs, grad)
        else:
            parts = convolution_weight_gradient(layer, inputs, grad), grad.sum((0, 2, 3))
        return to_inputs, *_with_bias(ctx, parts), None, None, None


def _with_bias(ctx: Any, parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    return parts[0], parts[1] if ctx.needs_input_grad[2] else None
