"""Critical batch sizes and noise scales of McCandlish et al. 2018, Table 1, to set beside what was measured here."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

SOURCE = "McCandlish et al. 2018, Table 1"
Span = tuple[float, float]


@dataclass(frozen=True)
class PublishedScale:
    """One task of the table; where the paper gives a range over several games it is kept as one.

    Attributes:
        task: as the paper calls it.
        unit: what a batch is counted in.
        critical_start, critical_end: critical batch size early and late in training; None where not measured. The upper
            end of a lower bound is infinite.
        noise_start, noise_mean: simple noise scale at the start and averaged over training.
    """

    task: str
    unit: str
    critical_start: Span | None
    critical_end: Span
    noise_start: Span
    noise_mean: Span


def _exact(value: float) -> Span:
    return (value, value)


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
    PublishedScale("Atari", "frames", (100, 1_000), (400, 8_000), (100, 1_000), (1_000, 20_000)),
    _scale("Dota 1v1", "frames", (50_000, 3_000_000), (100_000, 300_000)),
    PublishedScale("Dota 5v5", "frames", None, (8_000_000, float("inf")), _exact(100_000), _exact(24_000_000)),
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
        if scale.critical_end[1] < float("inf")
    ]
    return pd.DataFrame(rows)


def _point(name: str, span: Span) -> dict[str, float]:
    return {name: (span[0] * span[1]) ** 0.5, f"{name}_low": span[0], f"{name}_high": span[1]}
