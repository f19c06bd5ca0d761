"""Optimisers of `torch.optim` for many trials at once: a row of numbers each, hyperparameters of its own.

The updates are torch's to the letter, on one matrix in place of a list of tensors. Hyperparameters may be one number
for all or (trials,) numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rl_scaling.config import ConfigError

Numbers = float | Tensor


class StackedOptimizer(ABC):
    """Changes (trials, parameters) by gradients of the same shape; what it remembers are matrices like them."""

    def __init__(self, **hyperparameters: Numbers):
        self._numbers = {name: _column(value) for name, value in hyperparameters.items()}
        self._memory: dict[str, Tensor] = {}
        self._updates, self._placed = 0, False

    @torch.no_grad()
    def step(self, parameters: Tensor, gradients: Tensor, learning_rates: Tensor) -> None:
        """One update in place, with (trials,) learning rates."""
        if not self._placed:
            self._numbers = {name: value.to(parameters) for name, value in self._numbers.items()}
            self._placed = True
        self._updates += 1
        decay = self._numbers["weight_decay"]
        if bool((decay != 0).any()):
            gradients = gradients + decay * parameters
        self._update(parameters, gradients, learning_rates[:, None].to(parameters))

    def keep(self, trials: Tensor) -> None:
        """Keep only these trials."""
        self._memory = {name: memory[trials] for name, memory in self._memory.items()}
        self._numbers = {name: v[trials] if len(v) > 1 else v for name, v in self._numbers.items()}

    def memory(self, trial: int) -> dict[str, Tensor]:
        """Copies of what it remembers of one trial, under torch's names."""
        return {name: memory[trial].cpu().clone() for name, memory in self._memory.items()}

    def load(self, memories: Sequence[Mapping[str, Tensor]], updates: int, like: Tensor) -> None:
        """Continue after this many updates from each trial's memory, in matrices like the parameters'."""
        nothing, names = torch.zeros(like.shape[1]), {name for memory in memories for name in memory}
        self._updates = updates
        self._memory = {name: torch.stack([m.get(name, nothing) for m in memories]).to(like) for name in names}

    @abstractmethod
    def _update(self, parameters: Tensor, gradients: Tensor, rates: Tensor) -> None: ...

    def _remembered(self, name: str, like: Tensor) -> Tensor:
        if name not in self._memory:
            self._memory[name] = torch.zeros_like(like)
        return self._memory[name]

    def _all_zero(self, name: str) -> bool:
        return not bool((self._numbers[name] != 0).any())


class StackedSGD(StackedOptimizer):
    """`torch.optim.SGD`: m' = momentum m + g, theta' = theta - rate m'; Nesterov steps by g + momentum m'."""

    def __init__(self, *, momentum: Numbers = 0.0, nesterov: bool = False, weight_decay: Numbers = 0.0):
        super().__init__(momentum=momentum, weight_decay=weight_decay)
        self._nesterov = nesterov

    def _update(self, parameters: Tensor, gradients: Tensor, rates: Tensor) -> None:
        if not self._all_zero("momentum"):
            momentum, memory = self._numbers["momentum"], self._remembered("momentum_buffer", gradients)
            memory.mul_(momentum).add_(gradients)
            gradients = gradients + momentum * memory if self._nesterov else memory
        parameters.addcmul_(gradients, rates, value=-1)


class StackedAdam(StackedOptimizer):
    """`torch.optim.Adam`, with bias correction; `beta1` = 0 is Adam without momentum."""

    def __init__(self, *, beta1: Numbers = 0.9, beta2: Numbers = 0.999, eps: float = 1e-8, weight_decay: Numbers = 0.0):
        super().__init__(beta1=beta1, beta2=beta2, weight_decay=weight_decay)
        self._eps = eps

    def _update(self, parameters: Tensor, gradients: Tensor, rates: Tensor) -> None:
        # In float64, as torch has these scalars: 1 - beta2 ** t of the first steps has few digits in float32.
        beta1, beta2 = self._numbers["beta1"].double(), self._numbers["beta2"].double()
        first = gradients
        if not self._all_zero("beta1"):
            first = self._remembered("exp_avg", gradients)
            first.lerp_(gradients, (1 - beta1).to(gradients.dtype))
        second = self._remembered("exp_avg_sq", gradients)
        second.mul_(beta2.to(second.dtype)).addcmul_(gradients, gradients * (1 - beta2).to(second.dtype))
        root = second.sqrt().div_((1 - beta2**self._updates).sqrt().to(second.dtype)).add_(self._eps)
        scaled = (rates.double() / (1 - beta1**self._updates)).to(root.dtype)
        parameters.sub_(root.reciprocal_().mul_(first).mul_(scaled))


class StackedRMSprop(StackedOptimizer):
    """`torch.optim.RMSprop`: theta' = theta - rate g / (sqrt(v') + eps), v' = alpha v + (1 - alpha) g^2."""

    def __init__(
        self, *, alpha: Numbers = 0.99, momentum: Numbers = 0.0, eps: float = 1e-8, weight_decay: Numbers = 0.0
    ):
        super().__init__(alpha=alpha, momentum=momentum, weight_decay=weight_decay)
        self._eps = eps

    def _update(self, parameters: Tensor, gradients: Tensor, rates: Tensor) -> None:
        alpha, square = self._numbers["alpha"], self._remembered("square_avg", gradients)
        square.mul_(alpha).addcmul_(gradients, gradients * (1 - alpha))
        steps = gradients / square.sqrt().add_(self._eps)
        if not self._all_zero("momentum"):
            steps = self._remembered("momentum_buffer", gradients).mul_(self._numbers["momentum"]).add_(steps)
        parameters.addcmul_(steps, rates, value=-1)


class StackedAverage:
    """Exponential moving averages of the parameters, as `torch.optim.swa_utils` makes them with `get_ema_multi_avg_fn`.

    The first update copies the parameters; each later one is average' = decay average + (1 - decay) parameters.

    Args:
        decay: one for all, or (trials,).

    Raises:
        ConfigError: a decay outside 0..1.
    """

    def __init__(self, decay: Numbers):
        self._decay = _column(decay)
        if not bool(((self._decay >= 0) & (self._decay <= 1)).all()):
            raise ConfigError(f"the average's decay is {decay}: give a number from 0 to 1")
        self.matrix: Tensor | None = None

    @torch.no_grad()
    def update(self, parameters: Tensor) -> None:
        """Take (trials, parameters) in."""
        if self.matrix is None:
            self.matrix = parameters.clone()
            return
        self.matrix.lerp_(parameters, (1 - self._decay).to(parameters))

    def keep(self, trials: Tensor) -> None:
        """Keep only these trials."""
        self._decay = self._decay[trials] if len(self._decay) > 1 else self._decay
        if self.matrix is not None:
            self.matrix = self.matrix[trials]


def _column(value: Numbers) -> Tensor:
    """(trials or 1, 1) in float64."""
    column = torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1)
    if not math.isfinite(float(column.sum())):
        raise ConfigError(f"a hyperparameter of the optimiser is {value}: give finite numbers")
    return column
