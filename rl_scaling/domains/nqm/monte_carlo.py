"""A simulator of the updates themselves: parameters, random gradients, optimisers. It shares no formula with the rest.

It is the check of everything else in this package: what it prints are plain averages of L(theta) over simulated runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl_scaling.domains.nqm.recursion import Method, check_schedule
from rl_scaling.domains.nqm.spectrum import Spectrum

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SimulatedRisk:
    """Mean risk over the runs after 0 .. T updates, and the standard error of that mean, both (T + 1,)."""

    mean: FloatArray
    standard_error: FloatArray


def simulate(
    spectrum: Spectrum,
    learning_rates: ArrayLike,
    batch_sizes: ArrayLike,
    method: Method | None = None,
    *,
    runs: int = 1000,
    seed: int = 0,
) -> SimulatedRisk:
    """Runs of the optimiser: theta(0) normal, gradients H theta plus normal noise of covariance C / B.

    Args:
        learning_rates, batch_sizes, method: as in `risk_curve`.
        spectrum: groups are listed: its counts must be whole numbers.
        runs: how many, at least 2.

    Raises:
        ValueError: an argument outside its range, counts that are not whole.

    >>> result = simulate(Spectrum.from_eigenvalues([1.0, 0.5]), np.full(3, 0.5), 4, runs=100)
    >>> result.mean.shape
    (4,)
    """
    method = method or Method()
    rates, batches = check_schedule(learning_rates, batch_sizes)
    if runs < 2 or not np.all(spectrum.counts == np.round(spectrum.counts)):
        raise ValueError("give at least 2 runs, and a spectrum whose counts are whole numbers")
    repeats = spectrum.counts.astype(np.int64)
    h, c, start = (np.repeat(x, repeats) for x in (spectrum.eigenvalues, spectrum.noise, spectrum.initial))
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal((runs, len(h))) * np.sqrt(start)
    buffer, average = np.zeros_like(theta), theta.copy()
    losses = [_loss(average, h)]
    for rate, batch in zip(rates, batches, strict=True):
        point = theta - rate * method.momentum * buffer * h**-method.power if method.nesterov else theta
        gradient = h * point + _noise(rng, point, h, c, method.multiplicative) / np.sqrt(batch)
        buffer = method.momentum * buffer + gradient
        theta = theta - rate * h**-method.power * buffer
        average = method.averaging * average + (1 - method.averaging) * theta
        losses.append(_loss(average, h))
    values = np.stack(losses)
    return SimulatedRisk(values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(runs))


def _loss(theta: FloatArray, h: FloatArray) -> FloatArray:
    return 0.5 * (theta**2 @ h)


def _noise(rng: np.random.Generator, theta: FloatArray, h: FloatArray, c: FloatArray, kappa: float) -> FloatArray:
    """Normal with covariance C + kappa (H theta theta' H + 2 L(theta) H), for each run's theta."""
    noise = rng.standard_normal(theta.shape) * np.sqrt(c)
    if kappa == 0:
        return noise
    along = rng.standard_normal((len(theta), 1)) * h * theta
    spread = rng.standard_normal(theta.shape) * np.sqrt(2 * _loss(theta, h)[:, None] * h)
    return noise + np.sqrt(kappa) * (along + spread)
