"""Whether training together pays, by trying both ways for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_scaling.domains.supervised.batched.forward import StackedSGD
from rl_scaling.domains.supervised.batched.training import StackedTraining
from rl_scaling.domains.supervised.data.dataset import Dataset
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.models.small import Autoencoder

_PROBE_ROUNDS = 3
_PROBE_SECONDS = 0.05  # for each way in each round, at the least one update


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Updates per second of both ways, medians over rounds in which they took turns.

    Attributes:
        batch_size: images per update and trial.
        trials: trained together.
        alone: updates per second of one trial at a time.
        together: updates per second of all trials of the batched program, added up.
        ratio: median over the rounds of together over alone.
        low, high: quartiles of the rounds.
    """

    batch_size: int
    trials: int
    alone: float
    together: float
    ratio: float
    low: float
    high: float


def measure_gain(
    models: Sequence[nn.Module],
    data: Dataset,
    batch_size: int,
    *,
    rounds: int = _PROBE_ROUNDS,
    seconds: float = _PROBE_SECONDS,
) -> Gain:
    """Plain SGD in both ways in turns, on real batches, from the weights of the models, which are not changed.

    Args:
        models: one per trial.
        data: their images.
        batch_size: images per update and trial.
        rounds: in which each way has its turn.
        seconds: of each turn.

    Raises:
        ConfigError: the models cannot train together.
    """
    together, alone = _together(models, data, batch_size), _alone(models[0], data, batch_size)
    rates = []
    for step in (together, alone):
        step()
    for number in range(rounds):
        turns = [(0, alone, 1), (1, together, len(models))]
        pair = [0.0, 0.0]
        for place, step, trials in turns[:: 1 if number % 2 else -1]:
            pair[place] = trials * _per_second(step, seconds, data.train.device)
        rates.append(pair)
    table = np.array(rates)
    low, ratio, high = np.percentile(table[:, 1] / table[:, 0], [25, 50, 75])
    alone_rate, together_rate = np.median(table, axis=0)
    return Gain(
        batch_size=batch_size,
        trials=len(models),
        alone=float(alone_rate),
        together=float(together_rate),
        ratio=float(ratio),
        low=float(low),
        high=float(high),
    )


def last_that_pays(gains: Sequence[Gain]) -> int | None:
    """The largest batch size up to which training together was never slower; None: not even at the first.

    >>> rates = {1: 9.0, 8: 5.0, 64: 0.9, 256: 1.1}
    >>> found = [Gain(batch_size=b, trials=2, alone=1, together=r, ratio=r, low=r, high=r) for b, r in rates.items()]
    >>> last_that_pays(found)
    8
    """
    paying = list(takewhile(lambda gain: gain.ratio > 1, sorted(gains, key=lambda gain: gain.batch_size)))
    return paying[-1].batch_size if paying else None


def together_pays(
    model: str, options: tuple[tuple[str, object], ...], data: Dataset, batch_size: int, trials: int
) -> bool:
    """Whether this many trials of a model train faster together than one after the other, here and now.

    The answer is found by a probe of a fraction of a second and kept for the process.

    Args:
        model: its name.
        options: of the model, as sorted pairs.
        data: its images.
        batch_size: images per update and trial.
        trials: that could train together.

    Raises:
        ConfigError: the model cannot train together with others.
    """
    return trials > 1 and _probe(model, options, data, batch_size, trials) > 1


@lru_cache(maxsize=256)
def _probe(model: str, options: tuple[tuple[str, object], ...], data: Dataset, batch_size: int, trials: int) -> float:
    one = make_model(model, data.image_shape, data.num_classes, seed=0, **dict(options))
    return measure_gain([one] * trials, data, batch_size).ratio


def _together(models: Sequence[nn.Module], data: Dataset, batch_size: int) -> Callable[[], object]:
    training = StackedTraining(models, data.train, StackedSGD())
    generator = torch.Generator().manual_seed(0)
    rates = torch.full((len(models),), 1e-3, device=data.train.device)
    shape = (len(models), batch_size)
    return lambda: training.step(torch.randint(len(data.train), shape, generator=generator), rates)


def _alone(model: nn.Module, data: Dataset, batch_size: int) -> Callable[[], object]:
    """A plain loop of torch, as a trial alone runs."""
    own = deepcopy(model).to(data.train.device)
    optimizer = torch.optim.SGD(own.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)

    def step() -> Tensor:
        inputs, targets = data.train.batch(torch.randint(len(data.train), (batch_size,), generator=generator))
        outputs = own(inputs)
        loss = own.loss(outputs, inputs) if isinstance(own, Autoencoder) else cross_entropy(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _per_second(step: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Calls per second, measured for about this many seconds."""
    begun, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - begun < seconds:
        step()
        calls += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return calls / (time.perf_counter() - begun)
