"""Steps to a target as a smooth function of the model's parameters, cheap enough to fit.

The fewest steps are computed once on a grid of spectrum exponent, noise exponent and log batch size, and interpolated
by cubic splines from then on. Beyond the grid the curve is known: 1/B below it, constant above it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import NdBSpline, make_interp_spline

from rl_scaling.nqm.sgd import sgd_modes, sgd_second_moments
from rl_scaling.nqm.spectrum import Spectrum

FloatArray = NDArray[np.float64]

# The ranges of a, q and log s. Beyond a = 2 the largest few directions are all there is.
LOWEST, HIGHEST = (0.4, 0.0, -15.0), (2.0, 2.5, 25.0)
_SPECTRUM = np.linspace(LOWEST[0], HIGHEST[0], 33)
_NOISE = np.linspace(LOWEST[1], HIGHEST[1], 21)
_LOG_BATCH = np.linspace(np.log(0.05), np.log(1e8), 70)
_BINS = 64
_LOG_STEPS = np.arange(0.0, np.log(1e14), 0.15)
# Times the largest eigenvalue, 1; close together where the limit of stability, 2, is near.
_RATES = np.concatenate([np.geomspace(1e-9, 0.3, 150), np.linspace(0.31, 1.99, 60)])


@dataclass(frozen=True)
class Parameters:
    """The model: eigenvalues i^-a and per-example noise of covariance s h^q."""

    spectrum_exponent: float = 1.0
    noise_exponent: float = 1.0
    noise_scale: float = 1.0

    def spectrum(self, dimension: int) -> Spectrum:
        """The problem with these parameters."""
        noise_exponent = self.spectrum_exponent * self.noise_exponent
        return Spectrum.power_law(
            dimension, self.spectrum_exponent, noise_exponent=noise_exponent, noise_scale=self.noise_scale
        )


@dataclass(frozen=True)
class Setting:
    """What of the model is given and not fitted: its dimension and the target risk."""

    dimension: int = 10_000
    target: float = 0.01


@dataclass(frozen=True)
class Forecast:
    """Log steps of plain SGD at one power of the preconditioner, with the best learning rate at every batch size."""

    spline: NdBSpline

    @classmethod
    @functools.cache
    def of(cls, setting: Setting, power: float) -> Forecast:
        """Compute the grid; the same call again gives the same object."""
        curves = np.array([_curves(a, setting, power) for a in _SPECTRUM])
        return cls(_spline((_SPECTRUM, _NOISE, _LOG_BATCH), _continued(curves)))

    def log_steps(self, x: FloatArray, log_batch: FloatArray) -> FloatArray:
        """(n,) log steps at x = (a, q, log s), as far as splines tell."""
        wanted = log_batch - x[2]
        inside = np.clip(wanted, _LOG_BATCH[0], _LOG_BATCH[-1])
        points = np.column_stack([np.full_like(inside, x[0]), np.full_like(inside, x[1]), inside])
        return self.spline(points) + np.maximum(_LOG_BATCH[0] - wanted, 0.0)


def _curves(exponent: float, setting: Setting, power: float) -> FloatArray:
    """(noise exponents, batch sizes) log steps for one spectrum."""
    # With noise of covariance 1: the risk is linear in the noise, so that one computation serves all exponents.
    spectrum = Spectrum.power_law(setting.dimension, exponent, noise_exponent=0.0, bins=_BINS)
    problem = spectrum.preconditioned(power)
    t, rate = (x[..., None] for x in np.meshgrid(np.exp(_LOG_STEPS), _RATES))
    modes = sgd_modes(rate * problem.eigenvalues, np.zeros(1))
    start, noise = sgd_second_moments(modes, t)
    weights = 0.5 * problem.counts * problem.eigenvalues
    left = start @ (weights * problem.initial)
    each = weights * problem.noise * spectrum.eigenvalues ** _NOISE[:, None]
    risks = np.moveaxis(rate**2 * (noise @ each.T), -1, 0)
    return np.stack([_over_batch_sizes(left, risk, setting.target) for risk in risks])


def _over_batch_sizes(left: FloatArray, noise: FloatArray, target: float) -> FloatArray:
    """Log steps at the best rate for every batch size."""
    return np.array([_first_hits(left, noise, size, target).min() for size in np.exp(_LOG_BATCH)])


def _first_hits(left: FloatArray, noise: FloatArray, size: float, target: float) -> FloatArray:
    """(rates,) log steps at which the risk, (rates, steps), falls below the target; infinite where it does not.

    Between two numbers of steps log risk is taken as linear in log steps.
    """
    below = noise < (target - left) * size
    place = below.argmax(axis=1)
    rows = np.arange(len(left))
    excess = [np.log((left[rows, k] + noise[rows, k] / size) / target) for k in (np.maximum(place - 1, 0), place)]
    share = excess[0] / np.where(place > 0, excess[0] - excess[1], 1.0)
    hit = _LOG_STEPS[place] - (1 - share) * np.where(place > 0, _LOG_STEPS[1], 0.0)
    return np.where(below.any(axis=1), hit, np.inf)


def _continued(curves: FloatArray) -> FloatArray:
    """Steps at batch sizes too small for any rate of the grid: as 1/B, from the smallest that has one."""
    spacing = _LOG_BATCH[1] - _LOG_BATCH[0]
    for place in range(curves.shape[-1] - 2, -1, -1):
        here = curves[..., place]
        curves[..., place] = np.where(np.isfinite(here), here, curves[..., place + 1] + spacing)
    return curves


def _spline(axes: tuple[FloatArray, ...], values: FloatArray) -> NdBSpline:
    """The cubic spline through values on a grid."""
    knots, coefficients = [], values
    for place, axis in enumerate(axes):
        along = make_interp_spline(axis, coefficients, k=3, axis=place)
        knots.append(along.t)
        coefficients = np.moveaxis(along.c, 0, place)
    return NdBSpline(tuple(knots), coefficients, 3)
