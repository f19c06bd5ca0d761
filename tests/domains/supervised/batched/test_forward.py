"""Which models train together with others as each trains alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.batched.forward import (
    StackedAdam,
    StackedAverage,
    StackedOptimizer,
    StackedRMSprop,
    StackedSGD,
    require_stackable,
)
from rl_scaling.domains.supervised.models import make_model


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("wide-resnet", {"depth": 10, "width": 1}, "BatchNorm2d are trained one at a time"),
        ("resnet32", {}, "GhostBatchNorm2d are trained one at a time"),
        ("cnn", {"dropout": 0.4}, "dropout are trained one at a time"),
    ],
)
def test_models_that_cannot_train_together_say_why(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        require_stackable(make_model(name, (1, 8, 8), 10, seed=0, **options))


TRIALS = 4


Make = tuple[StackedOptimizer, Callable[[Any, int], torch.optim.Optimizer]]
BETA = torch.tensor([0.0, 0.5, 0.9, 0.99])
OPTIMIZERS: dict[str, Callable[[], Make]] = {
    "sgd": lambda: (StackedSGD(), lambda p, _: torch.optim.SGD(p)),
    "heavy ball": lambda: (StackedSGD(momentum=BETA), lambda p, i: torch.optim.SGD(p, momentum=float(BETA[i]))),
    "nesterov": lambda: (
        StackedSGD(momentum=0.9, nesterov=True),
        lambda p, _: torch.optim.SGD(p, momentum=0.9, nesterov=True),
    ),
    "adam": lambda: (
        StackedAdam(beta1=BETA, eps=1e-6),
        lambda p, i: torch.optim.Adam(p, betas=(float(BETA[i]), 0.999), eps=1e-6),
    ),
    "adam without momentum": lambda: (
        StackedAdam(beta1=0.0, beta2=BETA),
        lambda p, i: torch.optim.Adam(p, betas=(0.0, float(BETA[i]))),
    ),
    "rmsprop": lambda: (StackedRMSprop(alpha=BETA), lambda p, i: torch.optim.RMSprop(p, alpha=float(BETA[i]))),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_are_torchs(name: str) -> None:
    """In float64, on given gradients, for hyperparameters and learning rates that differ from trial to trial."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(TRIALS, 30, dtype=torch.float64, generator=generator)
    gradients = torch.randn(40, TRIALS, 30, dtype=torch.float64, generator=generator)
    rates = torch.rand(40, TRIALS, generator=generator) * 0.1
    ours, torchs = OPTIMIZERS[name]()
    matrix = start.clone()
    for step in range(40):
        ours.step(matrix, gradients[step], rates[step])
    for trial in range(TRIALS):
        parameter = nn.Parameter(start[trial].clone())
        optimizer = torchs([parameter], trial)
        for step in range(40):
            optimizer.param_groups[0]["lr"] = float(rates[step, trial])
            parameter.grad = gradients[step, trial].clone()
            optimizer.step()
        torch.testing.assert_close(matrix[trial], parameter.detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trials_that_leave_take_their_numbers_and_memory_along(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(TRIALS, 30, generator=generator)
    gradients = torch.randn(10, TRIALS, 30, generator=generator)
    rates = torch.full((TRIALS,), 0.01)
    (whole, _), (less, _) = OPTIMIZERS[name](), OPTIMIZERS[name]()
    one, other, kept = start.clone(), start.clone(), torch.tensor([3, 1])
    for step in range(10):
        whole.step(one, gradients[step], rates)
        if step == 5:
            less.keep(kept)
            other = other[kept]
        less.step(other, gradients[step] if step < 5 else gradients[step, kept], rates[: len(other)])
    assert torch.equal(other, one[kept])


def test_an_average_has_a_decay_from_0_to_1() -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        StackedAverage(1.5)
    with pytest.raises(ConfigError, match="finite"):
        StackedSGD(momentum=math.nan)
