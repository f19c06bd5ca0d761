"""Critical batch sizes and noise scales of McCandlish et al. 2018, Table 1, to set beside what was measured here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from rl_scaling.estimates import UNKNOWN, Estimate

SOURCE = "McCandlish et al. 2018, Table 1"


@dataclass(frozen=True)
class PublishedScale:
    """One task of the table; where the paper gives a range over several games it is kept as one.

    Attributes:
        task: as the paper calls it.
        unit: what a batch is counted in.
        critical_start, critical_end: critical batch size early and late in training.
        noise_start, noise_mean: simple noise scale at the start and averaged over training.
    """

    task: str
    unit: str
    critical_start: Estimate
    critical_end: Estimate
    noise_start: Estimate
    noise_mean: Estimate


def _exact(value: float) -> Estimate:
    return Estimate(value, value, value)


def _range(low: float, high: float = math.inf) -> Estimate:
    """Without a value: a range, or a lower bound."""
    return Estimate(math.nan, low, high)


def _scale(task: str, unit: str, critical: tuple[float, float], noise: tuple[float, float]) -> PublishedScale:
    return PublishedScale(task, unit, _exact(critical[0]), _exact(critical[1]), _exact(noise[0]), _exact(noise[1]))


PUBLISHED = (
    _scale("MNIST", "examples", (20, 200), (50, 900)),
    _scale("SVHN", "examples", (50, 500), (300, 4_000)),
    _scale("CIFAR-10", "examples", (300, 900), (400, 2_000)),
    _scale("ImageNet", "examples", (1_000, 15_000), (4_000, 30_000)),
    _scale("SVHN autoencoder", "examples", (10, 40), (2, 2)),
    _scale("SVHN VAE", "examples", (10, 200), (10, 10)),
    _scale("Billion Word", "tokens", (700, 100_000), (1_000, 150_000)),
    PublishedScale(
        "Atari", "frames", _range(100, 1_000), _range(400, 8_000), _range(100, 1_000), _range(1_000, 20_000)
    ),
    _scale("Dota 1v1", "frames", (50_000, 3_000_000), (100_000, 300_000)),
    PublishedScale("Dota 5v5", "frames", UNKNOWN, _range(8_000_000), _exact(100_000), _exact(24_000_000)),
)


def published_pairs() -> pd.DataFrame:
    """The end of training of every task, as points for a chart.

    Returns:
        Columns task, unit, noise_scale, critical_batch and their _low and _high; a range is a point at its geometric
        middle. Tasks with a bound alone are left out.
    """
    rows = [
        {"task": scale.task, "unit": scale.unit}
        | _point("noise_scale", scale.noise_mean)
        | _point("critical_batch", scale.critical_end)
        for scale in PUBLISHED
        if math.isfinite(scale.critical_end.high)
    ]
    return pd.DataFrame(rows)


def _point(name: str, scale: Estimate) -> dict[str, float]:
    return Estimate((scale.low * scale.high) ** 0.5, scale.low, scale.high).columns(name)
