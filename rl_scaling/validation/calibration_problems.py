"""Series of gradients with a known noise scale, and what their noise contributes to the two moments.

A measurement of k groups with mean gradients G + e_i, noise covariance of trace 1 each, has the moments

    |G|^2_est = |G|^2 + 2 G . e + pair,        tr(Sigma)_est = trace,

with e the mean of the e_i, pair the mean of e_i . e_j over i != j and trace their scatter sum |e_i - e|^2 / (k - 1).
These numbers are all that the estimators see, and noise of another size only scales them. For Gaussian noise they
follow exactly from chi-squared variables: e and the scatter are independent (Cochran), in each eigenspace of the
covariance the scatter is chi-squared with (k - 1) m degrees of freedom and |e|^2 the square of its part along G plus
chi-squared with m - 1. The tests compare them with the same numbers from whole gradient vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from rl_scaling.noise.clusters import design_effect_of_clusters

FloatArray = NDArray[np.float64]

FRAMES_PER_GROUP = 16
WINDOW = 50.0
# Over a drifting series |G|^2 falls and tr(Sigma) grows by this factor each, so B_simple grows by its square.
DRIFT = 4.0


@dataclass(frozen=True)
class NoiseTerms:
    """The noise of series of measurements, for a covariance of trace 1 per group and a |G| of 1.

    Attributes:
        along: (repeats, measurements) component of the mean noise along G; mean 0.
        pair: (repeats, measurements) mean product of the noise of two groups; mean 0.
        trace: (repeats, measurements) scatter between groups; mean 1.
    """

    along: FloatArray
    pair: FloatArray
    trace: FloatArray


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the noise covariance, a bin of equal ones at a time; |G|^2 lies in the bins as the noise does.

    Attributes:
        eigenvalues: (bins,) of trace 1 together with their multiplicities.
        multiplicities: (bins,) dimensions, 2 or more each.
    """

    eigenvalues: tuple[float, ...]
    multiplicities: tuple[int, ...]

    @property
    def parts(self) -> FloatArray:
        """(bins,) the part of the trace, and of |G|^2, in each bin."""
        return np.array(self.eigenvalues) * np.array(self.multiplicities)

    @property
    def effective_dimensions(self) -> float:
        """tr(Sigma)^2 / tr(Sigma^2)."""
        return 1 / float(np.array(self.eigenvalues) @ self.parts)


def equal_spectrum(dimensions: int) -> Spectrum:
    """All directions alike.

    >>> equal_spectrum(4).effective_dimensions
    4.0
    """
    return Spectrum((1 / dimensions,), (dimensions,))


def inverse_spectrum(bins: int) -> Spectrum:
    """Eigenvalues that fall as 1 / i, in bins that double: 2 of size 1, 4 of 1/2, ... 2^bins of 2 / 2^bins.

    >>> inverse_spectrum(2).multiplicities
    (2, 4)
    """
    multiplicities = tuple(2**i for i in range(1, bins + 1))
    return Spectrum(tuple(2 / m / (2 * bins) for m in multiplicities), multiplicities)


@dataclass(frozen=True)
class Carried:
    """A part of the noise that stays with its group from one measurement to the next.

    Attributes:
        part: of the noise's variance, 0 to 1.
        autocorrelation: between successive measurements (AR(1)).
    """

    part: float
    autocorrelation: float


def gaussian_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    groups: int,
    spectrum: Spectrum,
    carried: Carried,
) -> NoiseTerms:
    """Terms of Gaussian noise.

    Args:
        shape: (repeats, measurements).
        carried: what stays from one measurement to the next.
    """
    along, mean_sq, scatter = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    bins = zip(spectrum.eigenvalues, spectrum.multiplicities, spectrum.parts, strict=True)
    for eigenvalue, dimensions, part in bins:
        component = _component(rng, shape, carried) * math.sqrt(eigenvalue / groups)
        along += math.sqrt(part) * component
        mean_sq += component**2 + eigenvalue / groups * _sq_norm(rng, shape, dimensions - 1, carried)
        scatter += eigenvalue * _sq_norm(rng, shape, dimensions * (groups - 1), carried)
    return NoiseTerms(along, mean_sq - scatter / (groups * (groups - 1)), scatter / (groups - 1))


def student_noise(
    rng: np.random.Generator, shape: tuple[int, int], groups: int, dimensions: int, freedom: float
) -> NoiseTerms:
    """Terms of groups of one example each, its noise multivariate Student-t; drawn as whole vectors.

    Args:
        shape: (repeats, measurements).
        dimensions: of the gradient; all alike.
        freedom: degrees of freedom, above 2.
    """
    repeats, measurements = shape
    along, mean_sq, own_sq = np.empty(shape), np.empty(shape), np.empty(shape)
    for row in range(repeats):
        vectors = rng.standard_normal((measurements, groups, dimensions), dtype=np.float32)
        # Student-t is a normal vector over an independent length; (freedom - 2) / dimensions makes its trace 1.
        lengths = (freedom - 2) / dimensions / rng.chisquare(freedom, (measurements, groups))
        vectors *= np.sqrt(lengths, dtype=np.float64).astype(np.float32)[..., None]
        mean = vectors.mean(axis=1, dtype=np.float64)
        along[row] = mean[:, 0]
        mean_sq[row] = np.einsum("td,td->t", mean, mean)
        own_sq[row] = np.einsum("tkd,tkd->t", vectors, vectors) / groups
    trace = (own_sq - mean_sq) * groups / (groups - 1)
    return NoiseTerms(along, mean_sq - trace / groups, trace)


def _component(rng: np.random.Generator, shape: tuple[int, int], carried: Carried) -> FloatArray:
    """One coordinate of unit variance over time."""
    fresh = rng.standard_normal(shape)
    if carried.part == 0:
        return fresh
    steps = rng.standard_normal(shape)
    steps[:, 1:] *= math.sqrt(1 - carried.autocorrelation**2)
    kept = lfilter([1.0], [1.0, -carried.autocorrelation], steps, axis=1)
    return math.sqrt(carried.part) * kept + math.sqrt(1 - carried.part) * fresh


def _sq_norm(rng: np.random.Generator, shape: tuple[int, int], dimensions: int, carried: Carried) -> FloatArray:
    """Squared length over time of a vector of such coordinates.

    A normal vector's squared length, given the length of its mean, is noncentral chi-squared; so lengths follow each
    other as a Markov chain, and the directions are not needed.
    """
    if carried.part == 0:
        return rng.chisquare(dimensions, shape)
    fresh = 1 - carried.autocorrelation**2
    kept = np.empty(shape)
    kept[:, 0] = rng.chisquare(dimensions, shape[0])
    for t in range(1, shape[1]):
        shift = carried.autocorrelation**2 * kept[:, t - 1] / fresh
        kept[:, t] = fresh * rng.noncentral_chisquare(dimensions, shift)
    own = 1 - carried.part
    return own * rng.noncentral_chisquare(dimensions, carried.part * kept / own)


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
