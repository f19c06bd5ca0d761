"""The noisy quadratic model fitted to measured steps: which spectrum and which noise explain a sweep.

The model has eigenvalues i^-a and per-example noise of covariance s * h^q (Zhang et al. 2019 take a = q = s = 1). Given
the fewest steps to a target at several batch sizes, a, q and log s are found by least squares in log steps: a sets how
many steps the largest batches need, s where the turn lies (batch size enters the model as B / s alone), q how sharp it
is. They are steps of SGD or of its averaged iterates, preconditioned or not, with the best constant settings, so those
measured should come from a tuned sweep; steps of several of these are fitted together. Steps of momentum are no smooth
function of the parameters (`rl_scaling.domains.nqm.forecast`): the fitted model makes forecasts of them.

Two spectra may explain the same steps: those of the largest batches grow with a up to about a = 1.4 and fall beyond,
where most of the risk lies in few directions. Therefore the search starts from many places and keeps every minimum
that an F test does not reject; of these the one nearest to a = 1 is the answer, the others are named. Intervals are
profiles: from the lowest to the highest value of one parameter that the test does not reject when the other two are
fitted anew, over all those minima. The test is that of all three parameters together, and so are the intervals. An
end at the edge of the range searched is open, and is given as infinite. The errors in log steps are taken as
independent and alike; that the model is right is an assumption, which the residual scatter tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.special import fdtri

from rl_scaling.domains.nqm.config import CONFIDENCE, Setting
from rl_scaling.domains.nqm.forecast import FITTED, HIGHEST, LOWEST, Forecast
from rl_scaling.domains.nqm.spectrum import FloatArray, Parameters
from rl_scaling.domains.nqm.tuning import as_table, steps_to_target
from rl_scaling.estimates import Estimate

PARAMETERS = 3
_START_EXPONENTS = (0.6, 1.0, 1.4, 1.8)
# log of the batch size around which the published model turns
_TURN_OF_THE_PAPER = math.log(300.0)
_BISECTIONS = 7
# Of several spectra that explain the steps the one nearest to 1/i comes first, which is measured in networks.
_USUAL = 1.0
# Minima whose spectrum exponents are closer than this lie in one flat valley.
_APART = 0.1
# How well whole steps of a compressed spectrum are known: with less scatter than this there still is an interval.
_ROUNDING = 0.002


@dataclass(frozen=True)
class ModelFit:
    """The noisy quadratic model that explains measured steps.

    Attributes:
        setting: dimension and target risk, which were given.
        spectrum_exponent: a of the eigenvalues i^-a.
        noise_exponent: q of the noise covariance s h^q.
        noise_scale: s of it; the model with B / s examples and s = 1 is the same.
        scatter: standard deviation of log steps about the fit.
        points: how many measurements.
        confidence: that all intervals cover together.
        alternatives: (m, 3) a, q and log s of other minima that are not rejected; none in most cases.
        accepted: (k, 3) a, q and log s at the ends of the intervals and at every minimum that is not rejected.
    """

    setting: Setting
    spectrum_exponent: Estimate
    noise_exponent: Estimate
    noise_scale: Estimate
    scatter: float
    points: int
    confidence: float
    alternatives: FloatArray
    accepted: FloatArray

    @property
    def parameters(self) -> Parameters:
        """The fitted values."""
        return Parameters(self.spectrum_exponent.value, self.noise_exponent.value, self.noise_scale.value)

    def predict(
        self, batch_sizes: Sequence[float] | FloatArray, optimizer: str = "sgd", power: float = 0.0
    ) -> pd.DataFrame:
        """Steps to the target at any batch sizes, also far from the measured ones, for any optimiser.

        Returns:
            Columns optimizer, power, batch_size, steps, steps_low, steps_high. The interval is that of the curve, not
            of a single run: the range over the parameters in `accepted`; it is NaN for momentum, whose steps are those
            of the best fit alone.
        """
        if optimizer not in FITTED:
            spectrum = self.parameters.spectrum(self.setting.dimension)
            common = {"optimizer": optimizer, "power": power, "target": self.setting.target}
            table = as_table(steps_to_target(batch_sizes, spectrum=spectrum, **common))
            found = measured_steps(table["batch_size"], table["steps"], power, optimizer)
            return found.assign(steps_low=math.nan, steps_high=math.nan)
        log_batch = np.log(np.asarray(batch_sizes, dtype=np.float64))
        forecast = Forecast(self.setting, optimizer, power, log_batch)
        best = forecast.log_steps(self._best)
        found = np.stack([forecast.log_steps(x) for x in self.accepted])
        low, high = np.minimum(found.min(axis=0), best), np.maximum(found.max(axis=0), best)
        rows = measured_steps(np.exp(log_batch), np.exp(best), power, optimizer)
        return rows.assign(steps_low=np.exp(low), steps_high=np.exp(high))

    @property
    def _best(self) -> FloatArray:
        return np.array([self.spectrum_exponent.value, self.noise_exponent.value, math.log(self.noise_scale.value)])


def measured_steps(
    batch_sizes: ArrayLike, steps: ArrayLike, power: float = 0.0, optimizer: str = "sgd"
) -> pd.DataFrame:
    """Measurements of one optimiser in the form `fit_model` takes; `pandas.concat` joins those of several."""
    batch_sizes, steps = np.asarray(batch_sizes), np.asarray(steps)
    return pd.DataFrame({"optimizer": optimizer, "power": power, "batch_size": batch_sizes, "steps": steps})


def fit_model(measured: pd.DataFrame, setting: Setting | None = None, *, confidence: float = CONFIDENCE) -> ModelFit:
    """Find the spectrum and the noise that explain measured steps to a target.

    Args:
        measured: one row per measurement, with the columns of `measured_steps`.
        setting: dimension and target risk of the model; None: those of Zhang et al. 2019.

    Raises:
        ValueError: a column is missing, fewer than four measurements or three batch sizes, numbers that are not
            positive and finite, an optimiser that is not in `FITTED`, a target above the start, or a confidence outside
            (0, 1).
    """
    setting = setting or Setting()
    _check(measured, setting, confidence)
    problem = _Problem(measured, setting)
    minima = problem.minima()
    squares = minima[0][1]
    freedom = len(measured) - PARAMETERS
    quantile = float(fdtri(PARAMETERS, freedom, confidence))
    allowed = max(squares, len(measured) * _ROUNDING**2) * (1 + PARAMETERS * quantile / freedom)
    accepted = sorted((x for x, value in minima if value <= allowed), key=lambda x: abs(x[0] - _USUAL))
    best = accepted[0]
    ends = [[problem.ends(place, x, allowed) for x in accepted] for place in range(PARAMETERS)]
    a, q, log_scale = (_interval(place, best[place], found) for place, found in enumerate(ends))
    scale = Estimate(math.exp(log_scale.value), math.exp(log_scale.low), math.exp(log_scale.high))
    points = np.array([*accepted, *(x for found in ends for pair in found for x in pair)])
    scatter = math.sqrt(squares / freedom)
    return ModelFit(setting, a, q, scale, scatter, len(measured), confidence, np.array(accepted[1:]), points)


def fastest(fit: ModelFit, batch_sizes: Sequence[float], optimizers: Sequence[tuple[str, float]]) -> pd.DataFrame:
    """Which optimiser needs the fewest steps at each batch size, by the fitted model.

    Args:
        batch_sizes: in examples.
        optimizers: names and preconditioner powers to choose from; the first is what the others are compared with.

    Returns:
        One row per batch size: batch_size, optimizer, power, steps, speed_up (steps of the first optimiser over its).
    """
    tables = [fit.predict(batch_sizes, name, power) for name, power in optimizers]
    steps = np.stack([table["steps"].to_numpy() for table in tables])
    fewest = steps.min(axis=0)
    chosen = [(size, *optimizers[place]) for size, place in zip(batch_sizes, steps.argmin(axis=0), strict=True)]
    table = pd.DataFrame(chosen, columns=pd.Index(["batch_size", "optimizer", "power"]))
    return table.assign(steps=fewest, speed_up=steps[0] / fewest)


def in_one_line(choices: pd.DataFrame) -> str:
    """What `fastest` says, as a sentence: neighbouring batch sizes with the same answer together."""
    parts = []
    names = choices["optimizer"] + np.where(choices["power"] > 0, choices["power"].map(" p={:g}".format), "")
    for _, run in choices.groupby((names != names.shift()).cumsum()):
        first, last = run["batch_size"].iloc[0], run["batch_size"].iloc[-1]
        sizes = _size(first) if first == last else f"{_size(first)} to {_size(last)}"
        low, high = run["speed_up"].min(), run["speed_up"].max()
        gain = f"{low:.1f}x" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f}-{high:.1f}x"
        parts.append(f"{names[run.index[0]]} at {sizes}" + (f" ({gain} fewer steps)" if high > 1.05 else ""))
    return "; ".join(parts)


def _size(batch_size: float) -> str:
    return f"{batch_size:,.0f}" if batch_size >= 100 else f"{batch_size:.3g}"


# --- least squares -----------------------------------------------------------------------------------------------


class _Problem:
    """Measured log steps and the model's, as a function of x = (a, q, log s)."""

    def __init__(self, measured: pd.DataFrame, setting: Setting) -> None:
        self._target = np.log(measured["steps"].to_numpy(np.float64))
        self._log_batch = np.log(measured["batch_size"].to_numpy(np.float64))
        kinds = list(zip(measured["optimizer"], measured["power"].astype(float), strict=True))
        self._groups = []
        for name, power in sorted(set(kinds)):
            rows = np.array([kind == (name, power) for kind in kinds])
            self._groups.append((Forecast(setting, name, power, self._log_batch[rows]), rows))

    def residuals(self, x: FloatArray) -> FloatArray:
        """(n,) log steps of the model less those measured."""
        found = np.empty_like(self._target)
        for forecast, rows in self._groups:
            found[rows] = forecast.log_steps(x)
        return found - self._target

    def slopes(self, x: FloatArray) -> FloatArray:
        """(n, 3) derivatives of the residuals that were computed last, at the same x."""
        found = np.empty((len(self._target), PARAMETERS))
        for forecast, rows in self._groups:
            found[rows] = forecast.slopes(x)
        return found

    def fit(self, start: FloatArray, free: Sequence[int] = range(PARAMETERS)) -> tuple[FloatArray, float]:
        """Fit the `free` parameters; x and its sum of squares."""
        chosen = list(free)

        def whole(part: FloatArray) -> FloatArray:
            x = start.copy()
            x[chosen] = part
            return x

        low, high = np.array(LOWEST)[chosen], np.array(HIGHEST)[chosen]
        first = np.clip(start[chosen], low + 1e-3, high - 1e-3)
        limits = {"bounds": (low, high), "xtol": 1e-5, "ftol": 1e-6, "max_nfev": 40}
        found = least_squares(
            lambda part: self.residuals(whole(part)),
            first,
            jac=lambda part: self.slopes(whole(part))[:, chosen],
            x_scale=0.3,
            **limits,
        )
        return whole(found.x), 2 * float(found.cost)

    def minima(self) -> list[tuple[FloatArray, float]]:
        """The lowest minimum of every valley that the starting points lead to, the lowest first."""
        turn = float(self._log_batch.mean()) - _TURN_OF_THE_PAPER
        found = [self.fit(np.array([a, 1.0, turn])) for a in _START_EXPONENTS]
        kept: list[tuple[FloatArray, float]] = []
        for x, squares in sorted(found, key=lambda pair: pair[1]):
            if all(abs(x[0] - other[0]) > _APART for other, _ in kept):
                kept.append((x, squares))
        return kept

    def ends(self, place: int, best: FloatArray, allowed: float) -> tuple[FloatArray, FloatArray]:
        """The points at which one parameter is as low and as high as `allowed` squares let it be."""
        low, high = (self._end(place, best, allowed, edge[place]) for edge in (LOWEST, HIGHEST))
        return low, high

    def _end(self, place: int, best: FloatArray, allowed: float, edge: float) -> FloatArray:
        others = [i for i in range(PARAMETERS) if i != place]
        inside, reach = best, 0.01
        while True:
            moved = inside.copy()
            moved[place] = inside[place] + math.copysign(min(reach, abs(edge - inside[place])), edge - inside[place])
            beyond, squares = self.fit(moved, others)
            if squares > allowed:
                break
            if moved[place] == edge:
                return beyond
            inside, reach = beyond, 2 * reach
        for _ in range(_BISECTIONS):
            middle = beyond.copy()
            middle[place] = (inside[place] + beyond[place]) / 2
            middle, squares = self.fit(middle, others)
            inside, beyond = (inside, middle) if squares > allowed else (middle, beyond)
        return inside


def _interval(place: int, value: float, ends: list[tuple[FloatArray, FloatArray]]) -> Estimate:
    """From the lowest to the highest end over all minima; infinite at the edge of the range searched."""
    low, high = min(pair[0][place] for pair in ends), max(pair[1][place] for pair in ends)
    low = -math.inf if low <= LOWEST[place] else float(low)
    return Estimate(float(value), low, math.inf if high >= HIGHEST[place] else float(high))


def _check(measured: pd.DataFrame, setting: Setting, confidence: float) -> None:
    missing = [name for name in ("optimizer", "power", "batch_size", "steps") if name not in measured.columns]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}: give optimizer, power, batch_size and steps")
    others = sorted(set(measured["optimizer"]) - set(FITTED))
    if others:
        raise ValueError(f"steps of {others[0]} cannot be fitted: leave out all but {' and '.join(FITTED)}")
    numbers = measured[["batch_size", "steps"]].to_numpy(np.float64)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError("batch sizes and steps must be positive and finite: leave out what did not reach the target")
    if len(measured) <= PARAMETERS or measured["batch_size"].nunique() < 3:
        raise ValueError(f"{len(measured)} measurements: the model needs 4 or more, at 3 batch sizes or more")
    Parameters().spectrum(setting.dimension).check_target(setting.target)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
