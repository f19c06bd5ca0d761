"""The optimisers of torch that a config names, and an average of the weights."""

from __future__ import annotations

from torch import nn, optim
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
