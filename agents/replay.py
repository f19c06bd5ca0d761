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
from rl_scaling.noise.torch.group_gradients import GroupSqNorms, Unmeasurable, measurable_layers, watching


class Tape:
    """Remembers what a network's layers gave while it acted, and replays it for the update.

    Everything is kept in one buffer per layer whose rows are already in the order of the update: all steps of the
    first environment, then of the second, and so on. Buffers are used again by the next recording.

    Args:
        network: all its trained parameters belong to layers that the noise scale can be measured in, each of which is
            used once per pass.
        keep_layers: False remembers the observations alone, a small part of the memory; then there is no replay.

    Raises:
        ConfigError: the network has other parameters, or an unusual layer.
    """

    def __init__(self, network: nn.Module, *, keep_layers: bool = True):
        self.network = network
        try:
            self._layers = measurable_layers(network) if keep_layers else {}
        except Unmeasurable as error:
            raise ConfigError(f"{error.what}: such a network is not supported") from error
        self._buffers: dict[nn.Module | None, Tensor] = {}
        self._uses: Counter[nn.Module] = Counter()
        self._steps = self._passes = 0
        self._num_envs: int | None = None

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
        handles = [layer.register_forward_hook(self._remember) for layer in self._layers.values()]
        try:
            with torch.no_grad():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def act(self, observations: Tensor, *, step: int | None = None, envs: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """One remembered pass: logits (n, num_parameters) and values (n,) for (n, *shape) observations.

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

    def replay(self, norms: GroupSqNorms | None = None) -> tuple[Tensor, Tensor]:
        """The network's outputs for the remembered passes, differentiable.

        Args:
            norms: collects norms of groups' gradients when the gradient is taken; rows are environment by environment.

        Returns:
            Logits (n * steps, num_parameters) and values (n * steps,), environment by environment.

        Raises:
            ConfigError: a layer was not used just once in every pass.
        """
        for layer in self._layers.values():
            if self._uses[layer] != self._passes:
                raise ConfigError(
                    f"{layer} is used {self._uses[layer]} times in {self._passes} passes: it must be once"
                )
        outputs = {layer: self._buffers[layer] for layer in self._layers.values()}
        with watching(self._layers, norms, outputs):
            return self.network(self.observations)
