"""The optimisers of torch that a config names, an average of the weights, and both as plain tensors.

A checkpoint has weights, averages and the optimiser's memory as one vector each, over all parameters in their order,
under torch's names of the memory: the same whether a run trained alone or stacked with others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rl_scaling.domains.supervised.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> optim.Optimizer:
    """The optimiser of a config for all weights of a model."""
    weights, rate = model.parameters(), config.learning_rate
    if config.name == "adam":
        return optim.Adam(weights, lr=rate, betas=(config.momentum, config.second_moment), eps=config.epsilon)
    if config.name == "rmsprop":
        return optim.RMSprop(weights, lr=rate, alpha=config.second_moment, eps=config.epsilon)
    return optim.SGD(weights, lr=rate, momentum=config.momentum, nesterov=config.name == "nesterov")


def make_average(config: OptimizerConfig, model: nn.Module) -> AveragedModel | None:
    """The average of a model's weights, to be updated after every step; None where the config wants none."""
    if not config.ema:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))


def flat(model: nn.Module) -> Tensor:
    """A copy of all parameters as one vector on the CPU."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).cpu().clone()


def load_weights(model: nn.Module, vector: Tensor) -> None:
    """The inverse of `flat`."""
    for parameter, part in zip(model.parameters(), _parts(vector, model.parameters()), strict=True):
        parameter.detach().copy_(part)


def memory_of(optimizer: optim.Optimizer, config: OptimizerConfig) -> dict[str, Tensor]:
    """What the optimiser remembers, one vector per name; nothing before its first step."""
    states = [optimizer.state[parameter] for parameter in _parameters(optimizer)]
    if not all(states):
        return {}
    return {
        name: torch.cat([state[name].detach().flatten() for state in states]).cpu().clone() for name in _names(config)
    }


def load_memory(optimizer: optim.Optimizer, config: OptimizerConfig, memory: Mapping[str, Tensor], steps: int) -> None:
    """The inverse of `memory_of` for a fresh optimiser; what is not there is 0."""
    parameters = _parameters(optimizer)
    total = sum(parameter.numel() for parameter in parameters)
    for name in _names(config):
        vector = memory.get(name, torch.zeros(total))
        for parameter, part in zip(parameters, _parts(vector, parameters), strict=True):
            optimizer.state[parameter][name] = part.to(parameter).clone()
    if config.name in ("adam", "rmsprop"):
        for parameter in parameters:
            optimizer.state[parameter]["step"] = torch.tensor(float(steps))


def _names(config: OptimizerConfig) -> tuple[str, ...]:
    if config.name == "adam":
        return ("exp_avg", "exp_avg_sq")
    if config.name == "rmsprop":
        return ("square_avg",)
    return ("momentum_buffer",) if config.momentum else ()


def _parameters(optimizer: optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _parts(vector: Tensor, parameters: Iterable[Tensor]) -> list[Tensor]:
    shapes = [parameter.shape for parameter in parameters]
    parts = vector.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
