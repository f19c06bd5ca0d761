"""Series of gradients with a known noise scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rl_scaling.calibration.noise import (
    Carried,
    FloatArray,
    NoiseTerms,
    equal_spectrum,
    gaussian_noise,
    inverse_spectrum,
    student_noise,
)
from rl_scaling.noise.clusters import design_effect_of_clusters

FRAMES_PER_GROUP = 16
WINDOW = 50.0
# Over a drifting series |G|^2 falls and tr(Sigma) grows by this factor each, so B_simple grows by its square.
DRIFT = 4.0

Draw = Callable[[np.random.Generator, tuple[int, int], int, float], NoiseTerms]


@dataclass(frozen=True)
class Problem:
    """One kind of gradients.

    Attributes:
        name: as printed.
        description: one sentence.
        draw: noise terms from a source of randomness, (repeats, measurements), groups and a correlation.
        correlated: whether it is run at several correlations.
        drifts: whether |G|^2 and tr(Sigma) change over the series.
        window: time constant of the estimate; None: the whole series.
    """

    name: str
    description: str
    draw: Draw
    correlated: bool = False
    drifts: bool = False
    window: float | None = None

    def weights(self, measurements: int) -> FloatArray:
        """(measurements,) what each measurement counts."""
        if self.window is None:
            return np.ones(measurements)
        return np.exp(-np.arange(measurements)[::-1] / self.window)

    def moments(self, terms: NoiseTerms, groups: int, batch_over_noise_scale: float) -> tuple[FloatArray, FloatArray]:
        """(repeats, measurements) estimates of |G|^2 and of tr(Sigma) per group, so that B_simple is counted in groups.

        The weighted means of the true values are 1 and `groups / batch_over_noise_scale`.
        """
        measurements = terms.trace.shape[1]
        weights = self.weights(measurements)
        course = DRIFT ** np.linspace(0, 1, measurements) if self.drifts else np.ones(measurements)
        signal = 1 / course / np.average(1 / course, weights=weights)
        trace = groups / batch_over_noise_scale * course / np.average(course, weights=weights)
        squares = signal + 2 * np.sqrt(signal * trace) * terms.along + trace * terms.pair
        return squares, trace * terms.trace


def _isotropic(rng: np.random.Generator, shape: tuple[int, int], groups: int, correlation: float) -> NoiseTerms:
    return gaussian_noise(rng, shape, groups, equal_spectrum(100))


def _anisotropic(rng: np.random.Generator, shape: tuple[int, int], groups: int, correlation: float) -> NoiseTerms:
    return gaussian_noise(rng, shape, groups, inverse_spectrum(8))


def _heavy_tailed(rng: np.random.Generator, shape: tuple[int, int], groups: int, correlation: float) -> NoiseTerms:
    return student_noise(rng, shape, groups, dimensions=20, freedom=5)


def _environments(rng: np.random.Generator, shape: tuple[int, int], groups: int, correlation: float) -> NoiseTerms:
    """The part of a group mean's variance that its frames share is theirs over the design effect."""
    effect = design_effect_of_clusters([FRAMES_PER_GROUP], correlation)
    carried = Carried(FRAMES_PER_GROUP * correlation / effect, correlation)
    return gaussian_noise(rng, shape, groups, equal_spectrum(100), carried)


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("gaussian", "Gaussian noise, 100 directions alike", _isotropic),
        Problem("anisotropic", "Gaussian noise in 510 directions, eigenvalues falling as 1 / i", _anisotropic),
        Problem("heavy-tailed", "Student-t noise with 5 degrees of freedom, one example to a group", _heavy_tailed),
        Problem("drifting", "|G|^2 falls and tr(Sigma) grows, each by 4; the whole series", _isotropic, drifts=True),
        Problem(
            "drifting-window",
            "the same drift, estimated over a window of 50 measurements",
            _isotropic,
            drifts=True,
            window=WINDOW,
        ),
        Problem(
            "environments",
            "16 frames of each environment share a part of their noise (the correlation), which lasts into the next"
            " measurement (with the same autocorrelation)",
            _environments,
            correlated=True,
        ),
    )
}
