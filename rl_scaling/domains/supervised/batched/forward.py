"""Many models of one kind at once: the forward pass, the losses, and optimisers with a row of numbers for each.

The updates are those of `torch.optim` to the letter, on one matrix in place of a list of tensors. Hyperparameters may
be one number for all or (trials,) numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

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
        label_smoothing: share of the target that goes to all classes alike.
    """
    if isinstance(model, Autoencoder):
        return binary_cross_entropy_with_logits(outputs, inputs, reduction="none").flatten(1).sum(1)
    return cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)


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

    def __init__(self, *, momentum: Numbers = 0.0, nesterov: bool = False):
        super().__init__(momentum=momentum)
        self._nesterov = nesterov

    def _update(self, parameters: Tensor, gradients: Tensor, rates: Tensor) -> None:
        if not self._all_zero("momentum"):
            momentum, memory = self._numbers["momentum"], self._remembered("momentum_buffer", gradients)
            memory.mul_(momentum).add_(gradients)
            gradients = gradients + momentum * memory if self._nesterov else memory
        parameters.addcmul_(gradients, rates, value=-1)


class StackedAdam(StackedOptimizer):
    """`torch.optim.Adam`, with bias correction; `beta1` = 0 is Adam without momentum."""

    def __init__(self, *, beta1: Numbers = 0.9, beta2: Numbers = 0.999, eps: float = 1e-8):
        super().__init__(beta1=beta1, beta2=beta2)
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

    def __init__(self, *, alpha: Numbers = 0.99, eps: float = 1e-8):
        super().__init__(alpha=alpha)
        self._eps = eps

    def _update(self, parameters: Tensor, gradients: Tensor, rates: Tensor) -> None:
        alpha, square = self._numbers["alpha"], self._remembered("square_avg", gradients)
        square.mul_(alpha).addcmul_(gradients, gradients * (1 - alpha))
        parameters.addcmul_(gradients / square.sqrt().add_(self._eps), rates, value=-1)


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
