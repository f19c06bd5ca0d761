"""The Hessian-weighted noise scale B_noise from line searches over batch sizes, without any Hessian.

McCandlish et al. 2018, section 2.2 and Figure 5: how much a step along the gradient of a batch of B examples improves
the true loss, and how long the best step is, as functions of B, fitted to eqs. 2.7 and 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from rl_scaling.estimates import Estimate
from rl_scaling.noise.torch.hessian import LossFunction, mean_gradient, trainable

FloatArray = NDArray[np.float64]

_COARSE_STEPS = np.exp2(np.arange(-40.0, 41.0, 2.0))
# Around the full gradient's best step: down to where B = B_noise / 4096 would have its own, up for lucky draws.
_FINE_STEPS = np.exp2(np.arange(-12.0, 3.5, 0.5))
# An end of an interval further than this factor from every batch size is an extrapolation and counts as open.
_SEEN = 100.0


@dataclass(frozen=True, kw_only=True)
class SaturationFit:
    """y(B) = limit / (1 + B_noise / B), the form of eqs. 2.6 and 2.7, fitted in log space.

    Attributes:
        b_noise: where y is half its limit, in examples; unresolved unless both ends of its interval are known.
            The lower one is 0 where the batch sizes are all too large to tell, the upper one infinite where they are
            all too small.
        limit: y for B to infinity.
        scatter: root of chi^2 per degree of freedom: 1 where the points scatter about the curve as their standard
            errors say, more where the curve has another form. Intervals are widened by it where it exceeds 1.
        curve: (n,) the fitted y at the batch sizes.
    """

    b_noise: Estimate
    limit: Estimate
    scatter: float
    curve: FloatArray


@dataclass(frozen=True, kw_only=True)
class LineSearchNoiseScale:
    """Gains and best steps over batch sizes, and what eqs. 2.6 and 2.7 make of them.

    Eq. 2.7 is the gain of the one step size that is best on the average over draws. Figure 5 of the paper shows a
    search for each draw by itself; it can only find more, most where B is small: E[max] >= max E. Both are here.

    Attributes:
        batch_sizes: (n,) examples.
        gains: (n,) mean improvement of the loss at the best common step size; gain_errors, its standard errors.
        steps: (n,) best common step size; step_errors, its standard errors.
        own_gains: (n,) mean of the improvements at each draw's own best step size (0 or more); own_gain_errors.
        full_gain, full_step: improvement and best step along the gradient of all the data: DeltaL_max and eps_max
            as measured rather than fitted.
        gain_fit: eq. 2.7 on `gains`: B_noise and DeltaL_max.
        step_fit: eq. 2.6 on `steps`: B_noise and eps_max.
        own_gain_fit: eq. 2.7 on `own_gains`, the paper's way.
        confidence: of all intervals.
    """

    batch_sizes: FloatArray
    gains: FloatArray
    gain_errors: FloatArray
    steps: FloatArray
    step_errors: FloatArray
    own_gains: FloatArray
    own_gain_errors: FloatArray
    full_gain: float
    full_step: float
    gain_fit: SaturationFit
    step_fit: SaturationFit
    own_gain_fit: SaturationFit
    confidence: float


def line_search_noise_scale(
    model: nn.Module,
    loss_fn: LossFunction,
    data: tuple[Tensor, Tensor],
    batch_sizes: Sequence[int],
    *,
    draws: int = 64,
    seed: int = 0,
    confidence: float = 0.95,
) -> LineSearchNoiseScale:
    """Searches along noisy gradients for the step that lowers the loss on all of `data` most.

    The model's weights are moved meanwhile and put back. Cost: `draws` gradients and 31 `draws` losses on all the data
    for each batch size.

    Args:
        model: maps inputs (n, ...) to outputs (n, ...), without chance or batch statistics.
        loss_fn: outputs and targets to the mean loss of the examples, a scalar.
        data: inputs and targets that stand for the true loss. Batches are drawn from it with replacement, so that the
            gradient of B examples has covariance Sigma / B exactly.
        batch_sizes: three or more different ones, best from well below B_noise to well above it.
        draws: noisy gradients for each batch size, 2 or more.

    Raises:
        ValueError: fewer than three batch sizes or two draws; or a loss that has no minimum along the full gradient.
    """
    sizes = np.unique(np.asarray(batch_sizes, dtype=np.int64))
    if len(sizes) < 3 or sizes[0] < 1 or draws < 2:
        raise ValueError("a line search needs three or more different batch sizes of 1 or more, and two or more draws")
    generator = torch.Generator().manual_seed(seed)
    full_gradient = mean_gradient(model, loss_fn, data)
    coarse = _gains(model, loss_fn, data, full_gradient, _COARSE_STEPS)
    if not 0 < int(np.argmax(coarse)) < len(coarse) - 1:
        raise ValueError("the loss has no minimum along its gradient: at a stationary point there is nothing to search")
    grid = _COARSE_STEPS[int(np.argmax(coarse))] * _FINE_STEPS
    full_step, full_gain = best_steps(grid, _gains(model, loss_fn, data, full_gradient, grid))
    measured = []
    for size in sizes.tolist():
        gradients = (mean_gradient(model, loss_fn, draw_examples(data, size, generator)) for _ in range(draws))
        measured.append(np.stack([_gains(model, loss_fn, data, gradient, grid) for gradient in gradients]))
    return _summarised(sizes.astype(np.float64), grid, measured, (float(full_step), float(full_gain)), confidence)


def draw_examples(data: tuple[Tensor, Tensor], size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`size` examples of inputs and targets, with replacement: independent draws from the data as they are."""
    rows = torch.randint(len(data[0]), (size,), generator=generator).to(data[0].device)
    return data[0][rows], data[1][rows]


def best_steps(grid: FloatArray, gains: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The step of the greatest gain and that gain, from a parabola through the best three points of the grid.

    Exact for a quadratic loss. The grid is completed by the step 0, whose gain is 0; steps are never negative.

    Args:
        grid: (m,) step sizes, rising.
        gains: (..., m) decrease of the loss; minus infinity where the loss is not finite.

    Returns:
        (...) step and (...) gain.

    >>> step, gain = best_steps(np.array([0.5, 1.0, 2.0]), np.array([1.25, 2.0, 2.0]))
    >>> print(f"{step:.2f} {gain:.2f}")
    1.50 2.25
    """
    grid, gains = np.concatenate([[0.0], grid]), np.concatenate([np.zeros((*gains.shape[:-1], 1)), gains], axis=-1)
    middle = np.clip(gains.argmax(axis=-1), 1, len(grid) - 2)
    x, y = [], []
    for offset in (-1, 0, 1):
        x.append(grid[middle + offset])
        y.append(np.take_along_axis(gains, (middle + offset)[..., None], axis=-1)[..., 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        rise, fall = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
        bend = (fall - rise) / (x[2] - x[0])
        slope = rise - bend * (x[1] - x[0])  # at x[0]
        step = np.clip(x[0] - slope / (2 * bend), x[0], x[2])
        gain = y[0] + (step - x[0]) * (slope + bend * (step - x[0]))
    smooth = np.isfinite(gain) & (bend < 0)  # otherwise the best point of the grid itself
    top = gains.argmax(axis=-1)
    return np.where(smooth, step, grid[top]), np.where(smooth, gain, gains.max(axis=-1))


def fit_saturation(
    batch_sizes: FloatArray, values: FloatArray, errors: FloatArray, *, confidence: float = 0.95
) -> SaturationFit:
    """Fits log y = log limit - log(1 + B_noise / B) (eqs. 2.6, 2.7) by weighted least squares.

    Args:
        batch_sizes: (n,) examples, n >= 3.
        values: (n,) positive.
        errors: (n,) standard errors of the values, positive.
        confidence: of the intervals, from Student's t with n - 2 degrees of freedom.

    Raises:
        ValueError: fewer than three points, or values or errors that are not positive.

    >>> sizes = np.array([1.0, 10.0, 100.0, 1000.0])
    >>> fit = fit_saturation(sizes, 3 / (1 + 50 / sizes), 0.01 * np.ones(4))
    >>> print(f"{fit.b_noise.value:.3f} {fit.limit.value:.3f}")
    50.000 3.000
    """
    if len(values) < 3 or np.min(values) <= 0 or np.min(errors) <= 0:
        raise ValueError("a fit of the noise scale needs three or more positive values with positive errors")
    weights = values / errors

    def residuals(parameters: FloatArray) -> FloatArray:
        return (parameters[0] - np.logaddexp(0, parameters[1] - np.log(batch_sizes)) - np.log(values)) * weights

    start = [math.log(values.max()), math.log(float(np.median(batch_sizes)))]
    found = least_squares(residuals, start, x_scale="jac")
    scatter = math.sqrt(2 * found.cost / (len(values) - 2))
    quantile = float(stdtrit(len(values) - 2, 0.5 + confidence / 2))
    reach = quantile * max(scatter, 1.0) * _standard_errors(np.asarray(found.jac))
    limit, scale = (float(value) for value in found.x)
    low, high = _exponential(scale - reach[1]), _exponential(scale + reach[1])
    low, high = low if low > batch_sizes.min() / _SEEN else 0.0, high if high < batch_sizes.max() * _SEEN else math.inf
    closed = low > 0 and high < math.inf
    return SaturationFit(
        b_noise=Estimate(math.exp(scale), low, high)
        if closed
        else Estimate(math.nan, low, high, "the batch sizes are all on one side of it"),
        limit=Estimate(math.exp(limit), _exponential(limit - reach[0]), _exponential(limit + reach[0])),
        scatter=scatter,
        curve=np.exp(limit - np.logaddexp(0, scale - np.log(batch_sizes))),
    )


def _exponential(log: float) -> float:
    return math.exp(min(max(log, -700.0), 700.0))


def _standard_errors(jacobian: FloatArray) -> FloatArray:
    """(2,) of the fitted logs, for residuals of unit variance; infinite where the points do not tell the two apart."""
    information = jacobian.T @ jacobian
    if np.linalg.cond(information) > 1e12:
        return np.full(2, math.inf)
    return np.sqrt(np.diag(np.linalg.inv(information)))


def _summarised(
    sizes: FloatArray,
    grid: FloatArray,
    measured: Sequence[FloatArray],
    full: tuple[float, float],
    confidence: float,
) -> LineSearchNoiseScale:
    """Everything that follows from the gains (draws, steps of the grid) of each batch size."""
    common = [_jackknife(grid, gains) for gains in measured]
    steps, step_errors, gains, gain_errors = np.array(common).T
    each = [best_steps(grid, gains)[1] for gains in measured]
    own = np.array([values.mean() for values in each])
    own_errors = np.array([values.std(ddof=1) / math.sqrt(len(values)) for values in each])
    return LineSearchNoiseScale(
        batch_sizes=sizes,
        gains=gains,
        gain_errors=gain_errors,
        steps=steps,
        step_errors=step_errors,
        own_gains=own,
        own_gain_errors=own_errors,
        full_step=full[0],
        full_gain=full[1],
        gain_fit=fit_saturation(sizes, gains, gain_errors, confidence=confidence),
        step_fit=fit_saturation(sizes, steps, step_errors, confidence=confidence),
        own_gain_fit=fit_saturation(sizes, own, own_errors, confidence=confidence),
        confidence=confidence,
    )


def _jackknife(grid: FloatArray, gains: FloatArray) -> tuple[float, float, float, float]:
    """Best common step and its mean gain with standard errors, each draw of (draws, m) left out in turn."""
    draws = len(gains)
    mean = gains.mean(axis=0)
    with np.errstate(invalid="ignore"):
        left_out = np.nan_to_num((draws * mean - gains) / (draws - 1), nan=-math.inf)
    found: list[float] = []
    for whole, parts in zip(best_steps(grid, mean), best_steps(grid, left_out), strict=True):
        found += [float(whole), math.sqrt((draws - 1) * float(np.var(parts)))]
    return found[0], found[1], found[2], found[3]


def _gains(
    model: nn.Module, loss_fn: LossFunction, data: tuple[Tensor, Tensor], gradient: Tensor, grid: FloatArray
) -> FloatArray:
    """(m,) decrease of the loss on `data` for steps against a gradient; minus infinity where the loss is not finite."""
    weights = trainable(model)
    start = parameters_to_vector(weights).detach().clone()
    losses: list[Tensor] = []
    try:
        with torch.no_grad():
            for step in (0.0, *grid.tolist()):
                vector_to_parameters(start - step * gradient, weights)
                losses.append(loss_fn(model(data[0]), data[1]).double())
    finally:
        vector_to_parameters(start, weights)
    values = torch.stack(losses).cpu().numpy()
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values[1:]), values[0] - values[1:], -math.inf)
