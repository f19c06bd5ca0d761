"""The problem of the noisy quadratic model: eigenvalues, gradient noise and starting point (Zhang et al. 2019, 3.1).

L(theta) = 1/2 sum_i h_i theta_i^2, and a gradient query at batch size B is H theta plus noise of covariance
diag(c) / B. Since everything is diagonal, dimensions with equal numbers are kept once with their count.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl_scaling.domains.nqm.config import Setting

FloatArray = NDArray[np.float64]
PUBLISHED_BINS, DEFAULT_BINS = 100, 128
# Powers of indices below this one are added one by one; above it the Euler-Maclaurin remainder is below rounding.
LISTED = 64
# Orders of the derivatives, and B_2k / (2k)!.
_EULER_MACLAURIN = ((1, 1 / 12), (3, -1 / 720), (5, 1 / 30_240), (7, -1 / 1_209_600), (9, 1 / 47_900_160))
_COLUMNS = ("eigenvalues", "noise", "initial", "counts")


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Groups of equal dimensions, from the largest eigenvalue to the smallest.

    Attributes:
        eigenvalues: (n,) h > 0 of the Hessian.
        noise: (n,) c >= 0, variance of the gradient of one example.
        initial: (n,) second moment E theta_i(0)^2 >= 0 at the start.
        counts: (n,) how many dimensions each group stands for.

    Raises:
        ValueError: no eigenvalues, shapes that differ, numbers that are not finite, eigenvalues or counts that are not
            positive, negative noise or second moments.

    >>> Spectrum.power_law().initial_risk
    4.893803...
    """

    eigenvalues: FloatArray
    noise: FloatArray
    initial: FloatArray
    counts: FloatArray

    def __post_init__(self) -> None:
        for name in _COLUMNS:
            values = np.array(getattr(self, name), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        shapes = {getattr(self, name).shape for name in _COLUMNS}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"eigenvalues, noise, initial and counts must be one (n,), not {sorted(shapes)}")
        if self.eigenvalues.size == 0:
            raise ValueError("the spectrum is empty: give at least one eigenvalue")
        for name in _COLUMNS:
            values, positive = getattr(self, name), name in ("eigenvalues", "counts")
            if not np.all(np.isfinite(values)):
                raise ValueError(f"{name} hold {int(np.sum(~np.isfinite(values)))} numbers that are NaN or infinite")
            if np.any(values <= 0 if positive else values < 0):
                wanted = "be positive" if positive else "not be negative"
                raise ValueError(f"{name} must {wanted}: {values.min():g} is not")
        if np.any(np.diff(self.eigenvalues) > 0):
            raise ValueError("eigenvalues must fall from first to last: use Spectrum.from_eigenvalues, which sorts")

    @staticmethod
    def from_eigenvalues(
        eigenvalues: ArrayLike, noise: ArrayLike | None = None, initial: ArrayLike = 1.0, counts: ArrayLike = 1.0
    ) -> Spectrum:
        """A spectrum from a list, sorted; noise None means C = H. One number for `initial` or `counts` means all alike.

        >>> Spectrum.from_eigenvalues([0.5, 1.0]).eigenvalues
        array([1. , 0.5])
        """
        h = np.atleast_1d(np.asarray(eigenvalues, dtype=np.float64))
        if h.ndim != 1 or h.size == 0:
            raise ValueError(f"eigenvalues have the shape {h.shape}: give a list of at least one")
        order = np.argsort(-h, kind="stable")
        columns = []
        for name, given in (("noise", h if noise is None else noise), ("initial", initial), ("counts", counts)):
            values = np.asarray(given, dtype=np.float64)
            if values.shape not in ((), (1,), h.shape):
                raise ValueError(f"{name} has the shape {values.shape}: give one number, or {h.size} as of eigenvalues")
            columns.append(np.broadcast_to(values, h.shape))
        return Spectrum(h[order], *(column[order] for column in columns))

    @staticmethod
    def from_file(path: str | Path) -> Spectrum:
        """Eigenvalues from a .npy file or a text file with one or more numbers a line; C = H, theta(0) ~ N(0, I).

        Raises:
            ValueError: the file holds something other than positive finite numbers; the message names the file.
            OSError: it cannot be read.
        """
        path = Path(path)
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # an empty file, refused below
                values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
            return Spectrum.from_eigenvalues(np.ravel(np.asarray(values, dtype=np.float64)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @staticmethod
    def power_law(
        dimensions: int = Setting.dimension,
        exponent: float = 1.0,
        *,
        scale: float = 1.0,
        noise_exponent: float | None = None,
        noise_scale: float = 1.0,
        initial_exponent: float = 0.0,
        initial_scale: float = 1.0,
        bins: int = DEFAULT_BINS,
    ) -> Spectrum:
        """h_i = scale * i^-exponent for i = 1 .. dimensions, compressed; time and memory depend on `bins` alone.

        The noise is c_i = noise_scale * h_i (C = H), or noise_scale * scale * i^-noise_exponent; the second moments of
        the start are initial_scale * i^-initial_exponent. Indices are cut into at most about `bins` ranges of equal
        ratio, none shorter than one. Each range keeps its count, its sum of h (the trace), its sum of c and its share
        of the initial risk. What it loses is the spread of h within a range: the error of the risk falls with the
        square of the range's width. With 128 bins and d = 10^4 the numbers of steps to a risk of 0.01 at given
        settings differ from those of all 10^4 eigenvalues by less than one part in a thousand, tuned ones by up to two
        (docs/noisy-quadratic-model.md).

        Raises:
            ValueError: dimensions or bins below 1 or not whole, an exponent that is not finite, a scale that is not
                positive.
        """
        for name, whole in (("dimensions", dimensions), ("bins", bins)):
            if not (whole >= 1 and whole == int(whole)):
                raise ValueError(f"{name} is {whole}: give a whole number of at least 1")
        if not all(map(math.isfinite, (exponent, noise_exponent or 0.0, initial_exponent))):
            raise ValueError("the exponents of the spectrum, the noise and the start must be finite numbers")
        if not (scale > 0 and noise_scale >= 0 and initial_scale >= 0):
            raise ValueError("scale must be positive, noise_scale and initial_scale not negative")
        noise_exponent = exponent if noise_exponent is None else noise_exponent
        edges = _index_edges(dimensions, bins)
        counts = np.diff(edges).astype(np.float64)
        h = power_sums(edges, exponent) / counts
        noise = power_sums(edges, noise_exponent) / counts
        initial = power_sums(edges, exponent + initial_exponent) / (counts * h)
        return Spectrum.from_eigenvalues(scale * h, noise_scale * scale * noise, initial_scale * initial, counts)

    @staticmethod
    def published(dimensions: int = Setting.dimension, bins: int = PUBLISHED_BINS) -> Spectrum:
        """1/i with every eigenvalue lowered to the next edge of geomspace(1, 1/dimensions, bins), C = H after that.

        This is how Zhang et al. 2019 compressed the spectrum for their figures. With the standard 10^4 dimensions and
        100 edges, 84 groups are not empty, and the trace comes out 4 % too small.

        >>> len(Spectrum.published().counts), Spectrum.published().dimensions
        (84, 10000)
        """
        h = 1.0 / np.arange(1, dimensions + 1)
        edges = np.geomspace(h[0], h[-1], bins)
        edges[-1] = min(edges[-1], h[-1])
        floors, counts = np.unique(np.searchsorted(-edges, -h, side="left"), return_counts=True)
        return Spectrum.from_eigenvalues(edges[floors], counts=counts)

    @property
    def dimensions(self) -> int:
        return round(float(self.counts.sum()))

    @property
    def trace(self) -> float:
        return float(self.counts @ self.eigenvalues)

    @property
    def weights(self) -> FloatArray:
        """(n,) what the second moments of the groups are multiplied with to give the risk: counts h / 2."""
        return 0.5 * self.counts * self.eigenvalues

    @property
    def initial_risk(self) -> float:
        return 0.5 * float(np.sum(self.counts * self.eigenvalues * self.initial))

    def check_target(self, target: float) -> None:
        """Raises ValueError for a risk that no optimiser comes down to from here: 0 or less, or above the start."""
        if not 0 < target < self.initial_risk:
            raise ValueError(f"target is {target}: give a risk between 0 and {self.initial_risk:.4g}, where it starts")

    def preconditioned(self, power: float) -> Spectrum:
        """The problem that the same optimiser sees behind the preconditioner P = H^power (Zhang et al. 2019, 3.4).

        In the coordinates h^(power/2) theta: h' = h^(1 - power), c' = c h^-power, E theta'^2 = h^power E theta^2. The
        risk of every state is the same in both.

        Raises:
            ValueError: power outside [0, 1].
        """
        if not 0 <= power <= 1:
            raise ValueError(f"the preconditioner's power is {power}: give a number from 0 to 1")
        if power == 0:
            return self
        h = self.eigenvalues
        return Spectrum(h ** (1 - power), self.noise * h**-power, self.initial * h**power, self.counts)

    def compressed(self, bins: int = DEFAULT_BINS) -> Spectrum:
        """At most `bins` groups of neighbouring eigenvalues in ranges of equal ratio.

        Keeps the count, the trace, the trace of the noise and the initial risk of every range, hence of the whole.

        Raises:
            ValueError: bins below 1.
        """
        if bins < 1:
            raise ValueError(f"bins is {bins}: give at least 1")
        h = self.eigenvalues
        span = np.log(h[0] / h[-1])
        labels = (
            np.minimum((np.log(h[0] / h) / span * bins).astype(np.intp), bins - 1) if span > 0 else np.zeros(len(h))
        )
        starts = np.flatnonzero(np.diff(labels, prepend=-1))
        counts = np.add.reduceat(self.counts, starts)
        mean = np.add.reduceat(self.counts * h, starts) / counts
        noise = np.add.reduceat(self.counts * self.noise, starts) / counts
        initial = np.add.reduceat(self.counts * h * self.initial, starts) / (counts * mean)
        return Spectrum.from_eigenvalues(mean, noise, initial, counts)


@dataclass(frozen=True)
class Parameters:
    """A power law: eigenvalues i^-a, per-example noise of covariance s h^q, second moments i^-e of the start."""

    spectrum_exponent: float = 1.0
    noise_exponent: float = 1.0
    noise_scale: float = 1.0
    initial_exponent: float = 0.0

    def spectrum(self, dimension: int) -> Spectrum:
        """The problem with these parameters."""
        return Spectrum.power_law(
            dimension,
            self.spectrum_exponent,
            noise_exponent=self.spectrum_exponent * self.noise_exponent,
            noise_scale=self.noise_scale,
            initial_exponent=self.initial_exponent,
        )


def _index_edges(dimensions: int, bins: int) -> NDArray[np.int64]:
    """1 = first < ... <= dimensions + 1 in steps of about equal ratio, each at least one."""
    stop = dimensions + 1
    if bins >= dimensions:
        return np.arange(1, stop + 1, dtype=np.int64)
    singles, parts = min(bins // 4, LISTED), bins - min(bins // 4, LISTED)
    wide = np.ceil(np.geomspace(singles + 1, stop, parts + 1)).astype(np.int64)
    wide[0], wide[-1] = singles + 1, stop
    return np.unique(np.concatenate([np.arange(1, singles + 1, dtype=np.int64), wide]))


def power_sums(edges: NDArray[np.int64], exponent: float) -> FloatArray:
    """Sums of i^-exponent over the ranges edges[j] <= i < edges[j + 1].

    From index 64 on by the Euler-Maclaurin formula with five correction terms, below rounding for exponents up to 12:
    memory and time do not depend on the largest index.

    Args:
        edges: (n + 1,), increasing, the first at least 1; every range lies on one side of 64 or is cut there.
        exponent: a, any real number.

    Returns:
        (n,) sums.

    >>> power_sums(np.array([1, 3, 5]), 1.0)
    array([1.5       , 0.58333333])
    """
    edges = np.asarray(edges, dtype=np.int64)
    listed = np.append(np.arange(1, LISTED, dtype=np.float64) ** -exponent, 0.0)
    starts = np.minimum(edges, LISTED) - 1
    small = np.where(np.diff(starts) > 0, np.add.reduceat(listed, starts)[:-1], 0.0)
    return small + _euler_maclaurin(np.maximum(edges[:-1], LISTED), np.maximum(edges[1:], LISTED), exponent)


def _euler_maclaurin(start: NDArray[np.int64], stop: NDArray[np.int64], a: float) -> FloatArray:
    """Sum over start <= i < stop: integral + (f(start) - f(stop)) / 2 + sum_k B_2k / (2k)! (f^(2k-1)(stop) - ...)."""
    m, n = start.astype(np.float64), stop.astype(np.float64)
    ratio = np.log1p((n - m) / m)
    growth = np.expm1((1 - a) * ratio) / (1 - a) if a != 1 else ratio
    total = m ** (1 - a) * growth + (m**-a - n**-a) / 2
    rising = a
    for power, weight in _EULER_MACLAURIN:
        total = total + weight * rising * (m ** -(a + power) - n ** -(a + power))
        rising *= (a + power) * (a + power + 1)
    return np.where(n > m, total, 0.0)
