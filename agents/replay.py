"""Differentiating the acting pass without running it again.

While acting, one small pass per step, every layer's output is remembered. For the update the steps are put together
to one large batch and the network is run once more in name only: layers with weights hand out what they gave
before, everything between them (activations, scaling) is recomputed at next to no cost, and the backward
pass runs over the whole batch at once, which is faster than through the many small passes. The gradient is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rl_scaling.agents.networks import pixel_layout
from rl_scaling.config import ConfigError
from rl_scaling.noise.torch.groups import (
    PartNorms,
    convolution_input_gradient,
    convolution_weight_gradient,
    is_measurable,
)


class Tape:
    """Remembers what a network's layers gave while it acted, and replays it for the update.

    Everything is kept in one buffer per layer whose rows are already in the order of the update: all steps of the
    first environment, then of the second, and so on. Buffers are used again by the next recording.

    Args:
        network: all its parameters belong to Linear and Conv2d layers, each of which is used once per pass.
        keep_layers: False remembers the observations alone, a small part of the memory; then there is no replay.

    Raises:
        ConfigError: the network has other parameters, or an unusual convolution.
    """

    def __init__(self, network: nn.Module, *, keep_layers: bool = True):
        self.network = network
        self._layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)] if keep_layers else []
        if keep_layers:
            self._require_replayable()
        self._buffers: dict[nn.Module | None, Tensor] = {}
        self._uses: Counter[nn.Module] = Counter()
        self._steps = self._passes = 0
        self._num_envs: int | None = None

    def _require_replayable(self) -> None:
        for layer in self._layers:
            if not is_measurable(layer):
                raise ConfigError(f"{layer}: only zero padding given in numbers, and one group, are supported")
        covered = {id(p) for layer in self._layers for p in layer.parameters()}
        for name, parameter in self.network.named_parameters():
            if id(parameter) not in covered:
                raise ConfigError(f"parameter {name} is in no Linear or Conv2d layer: such a network is not supported")

    @property
    def observations(self) -> Tensor:
        """(n * steps, *shape) what the network was given, environment by environment."""
        return self._buffers[None]

    @contextmanager
    def recording(self, steps: int, num_envs: int | None = None) -> Generator[None]:
        """Inside, `act` remembers this many steps (from the beginning), and nothing is differentiated.

        Args:
            steps: to remember of every environment.
            num_envs: of which a pass may take a part; None: every pass takes all.
        """
        self._steps, self._num_envs, self._passes = steps, num_envs, 0
        self._uses.clear()
        handles = [layer.register_forward_hook(self._remember) for layer in self._layers]
        try:
            with torch.no_grad():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def act(self, observations: Tensor, *, step: int | None = None, envs: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """One remembered pass: logits (n, num_actions) and values (n,) for (n, *shape) observations.

        Args:
            observations: of the environments `envs`.
            step: of these, counted from 0; None: the next one, where every pass takes all environments.
            envs: a part of those that are recorded.
        """
        self._place = envs, self._passes if step is None else step
        result = self.network(self._keep(None, observations, pixel_layout(observations)))
        self._passes += 1
        return result

    def _remember(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self._uses[layer] += 1
        # Laid out as the output is: putting it there is then a plain copy.
        channels_last = output.dim() == 4 and output.is_contiguous(memory_format=torch.channels_last)
        self._keep(layer, output, torch.channels_last if channels_last else torch.contiguous_format)

    def _keep(self, key: nn.Module | None, values: Tensor, layout: torch.memory_format) -> Tensor:
        """Put one step's (n, ...) values into their rows; returns those rows."""
        num_envs = self._num_envs or len(values)
        shape = (num_envs * self._steps, *values.shape[1:])
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != shape or buffer.dtype != values.dtype:
            buffer = torch.empty(shape, dtype=values.dtype, device=values.device, memory_format=layout)
            self._buffers[key] = buffer
        rows = buffer.unflatten(0, (num_envs, self._steps))[self._place]
        return rows.copy_(values)

    def replay(self, norms: PartNorms | None = None) -> tuple[Tensor, Tensor]:
        """The network's outputs for the remembered passes, differentiable.

        Args:
            norms: collects norms of parts of the gradient when it is taken; rows are environment by environment.

        Returns:
            Logits (n * steps, num_actions) and values (n * steps,), environment by environment.

        Raises:
            ConfigError: a layer was not used just once in every pass.
        """
        for layer in self._layers:
            if self._uses[layer] != self._passes:
                raise ConfigError(
                    f"{layer} is used {self._uses[layer]} times in {self._passes} passes: it must be once"
                )
        with self._handing_out(norms):
            return self.network(self.observations)

    @contextmanager
    def _handing_out(self, norms: PartNorms | None) -> Generator[None]:
        replays = {nn.Linear: _ReplayLinear, nn.Conv2d: _ReplayConv2d}
        try:
            for layer in self._layers:
                replay = next(function for kind, function in replays.items() if isinstance(layer, kind))
                # An instance attribute hides the class's forward until it is deleted again.
                vars(layer)["forward"] = _Handing(replay, layer, self._buffers[layer], norms)
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
        inputs, weight = (saved.to(grad.dtype) for saved in ctx.saved_tensors)  # under autocast: the layer's own
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
        inputs = ctx.saved_tensors[0].to(grad.dtype)
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
