"""Series of gradients with a known noise scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rl_scaling.noise.clusters import design_effect_of_clusters
from rl_scaling.validation.calibration.noise import (
    Carried,
    FloatArray,
    NoiseTerms,
    Spectrum,
    equal_spectrum,
    gaussian_noise,
    inverse_spectrum,
    student_noise,
)

FRAMES_PER_GROUP = 16
WINDOW = 50.0
# Over a drifting series |G|^2 falls and tr(Sigma) grows by this factor each, so B_simple grows by its square.
DRIFT = 4.0


@dataclass(frozen=True)
class Problem:
    """One kind of gradients.

    Attributes:
        name: as printed.
        description: one sentence.
        spectrum: of the noise of a group.
        freedom: degrees of freedom of Student-t noise; None: Gaussian.
        correlated: whether it is run at several correlations.
        drifts: whether |G|^2 and tr(Sigma) change over the series.
        window: time constant of the estimate; None: the whole series.
    """

    name: str
    description: str
    spectrum: Spectrum
    freedom: float | None = None
    correlated: bool = False
    drifts: bool = False
    window: float | None = None

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int], groups: int, correlation: float = 0.0
    ) -> NoiseTerms:
        """The noise of (repeats, measurements) batches.

        With a correlation, frames of an environment share that part of their noise; in the variance of a group's mean
        it is `FRAMES_PER_GROUP` times that part over the design effect.
        """
        if self.freedom is not None:
            return student_noise(rng, shape, groups, sum(self.spectrum.multiplicities), self.freedom)
        effect = design_effect_of_clusters([FRAMES_PER_GROUP], correlation)
        carried = Carried(FRAMES_PER_GROUP * correlation / effect, correlation)
        return gaussian_noise(rng, shape, groups, self.spectrum, carried)

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


_ALIKE = equal_spectrum(100)
PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("gaussian", "Gaussian noise, 100 directions alike", _ALIKE),
        Problem("anisotropic", "Gaussian noise in 510 directions, eigenvalues falling as 1 / i", inverse_spectrum(8)),
        Problem(
            "heavy-tailed",
            "Student-t noise in 20 directions, 5 degrees of freedom, one example to a group",
            equal_spectrum(20),
            freedom=5,
        ),
        Problem(
            "drifting", "|G|^2 falls to a quarter, tr(Sigma) grows fourfold; the whole series", _ALIKE, drifts=True
        ),
        Problem(
            "drifting-window",
            "the same drift, estimated over a window of 50 measurements",
            _ALIKE,
            drifts=True,
            window=WINDOW,
        ),
        Problem(
            "environments",
            "16 frames of an environment share that part of their noise, and it lasts, with that autocorrelation",
            _ALIKE,
            correlated=True,
        ),
    )
}
