"""Slow and plain versions of parts of the models, and one epoch of training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_scaling.domains.supervised.data import Split, augment, draw_augmentation
from rl_scaling.domains.supervised.models import project_channels
from rl_scaling.domains.supervised.models.small import Autoencoder


def ghost_batch_norm(inputs: Tensor, size: int, eps: float) -> Tensor:
    """One ghost batch after the other, one channel after the other."""
    outputs = torch.empty_like(inputs)
    for first in range(0, len(inputs), size):
        for channel in range(inputs.shape[1]):
            part = inputs[first : first + size, channel]
            mean = part.mean()
            outputs[first : first + size, channel] = (part - mean) / torch.sqrt(((part - mean) ** 2).mean() + eps)
    return outputs


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    outputs = model(inputs)
    return model.loss(outputs, inputs) if isinstance(model, Autoencoder) else cross_entropy(outputs, targets)


def train_one_epoch(model: nn.Module, data: Split, *, crop: bool = False) -> tuple[float, float]:
    """Mean loss of the first and last quarter of one epoch of Adam with a learning rate of 0.001 and batches of 16."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for rows in torch.randperm(len(data), generator=generator).split(16):
        inputs, targets = data.batch(rows)
        if crop:
            inputs = augment(inputs, draw_augmentation(len(rows), generator, mirror=False))
        loss = loss_of(model, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        project_channels(model)
        losses.append(float(loss.detach()))
    quarter = len(losses) // 4
    return sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
