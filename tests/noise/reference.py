"""Slow and plain versions of the noise scale's estimators, and gradients whose noise scale is known."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_scaling.noise import NoiseScaleMeter

FloatArray = NDArray[np.float64]


def pairwise_moments(group_means: FloatArray, sizes: FloatArray) -> tuple[float, float]:
    """|G|^2 from dot products of different groups, tr(Sigma) from the scatter of the groups about their mean."""
    products = weights = 0.0
    for i, j in itertools.permutations(range(len(sizes)), 2):
        products += sizes[i] * sizes[j] * float(group_means[i] @ group_means[j])
        weights += sizes[i] * sizes[j]
    centre = np.average(group_means, axis=0, weights=sizes)
    scatter = sum(b * float((g - centre) @ (g - centre)) for b, g in zip(sizes, group_means, strict=True))
    return products / weights, scatter / (len(sizes) - 1)


def two_batch_moments(small_sq_norm: float, big_sq_norm: float, small: float, big: float) -> tuple[float, float]:
    """McCandlish et al. 2018, eq. A.2, letter by letter."""
    grad_sq_norm = (big * big_sq_norm - small * small_sq_norm) / (big - small)
    return grad_sq_norm, (small_sq_norm - big_sq_norm) / (1 / small - 1 / big)


def sq_norms(vectors: FloatArray) -> FloatArray:
    return np.sum(vectors * vectors, axis=-1)


@dataclass(frozen=True)
class GaussianGradients:
    """Examples with gradients N(G, Sigma), |G| = 1, Sigma diagonal with eigenvalues from 1 to 3 in proportion."""

    noise_scale: float
    dimensions: int = 64

    def group_means(self, rng: np.random.Generator, measurements: int, groups: int, group_size: int) -> FloatArray:
        """(measurements, groups, dimensions)."""
        proportions = np.linspace(1, 3, self.dimensions)
        deviations = np.sqrt(self.noise_scale * proportions / proportions.sum() / group_size)
        means = rng.standard_normal((measurements, groups, self.dimensions)) * deviations
        means += 1 / np.sqrt(self.dimensions)
        return means


def feed(meter: NoiseScaleMeter, group_means: FloatArray) -> None:
    """One update for each (groups, dimensions) of (measurements, groups, dimensions)."""
    batch = sq_norms(group_means.mean(axis=1))
    for norms, batch_sq_norm in zip(sq_norms(group_means), batch, strict=True):
        meter.update(norms, float(batch_sq_norm))
