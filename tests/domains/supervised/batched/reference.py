"""One trial alone: torch's own loop, optimiser and average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rl_scaling.domains.supervised.data import Split
from rl_scaling.domains.supervised.models.small import Autoencoder


@dataclass
class Alone:
    """What became of it.

    Attributes:
        losses: of each batch, before its update.
        model: at the end.
        average: of the weights at the end.
    """

    losses: list[float]
    model: nn.Module
    average: nn.Module


def train_alone(
    model: nn.Module,
    split: Split,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Tensor],
    learning_rate: Callable[[int], float],
    *,
    decay: float = 0.9,
    label_smoothing: float = 0.0,
) -> Alone:
    """One update for each batch of row numbers, with the learning rate of its step."""
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    losses = []
    for step, batch in enumerate(rows):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        inputs, targets = split.batch(batch)
        outputs = model(inputs)
        loss = (
            model.loss(outputs, inputs)
            if isinstance(model, Autoencoder)
            else cross_entropy(outputs, targets, label_smoothing=label_smoothing)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        losses.append(float(loss.detach()))
    return Alone(losses, model, average.module)
