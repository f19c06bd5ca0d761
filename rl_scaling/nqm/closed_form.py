"""The noisy quadratic model in closed form: its risk and its noise scales (Zhang et al. 2019, section 3).

L = 1/2 sum h_i theta_i^2, gradient noise of covariance diag(c)/B, theta(0) ~ N(0, I). Preconditioning with H^-p is
plain descent on h^(1-p) with noise c h^-p (eqs. 8 to 10).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
_PUBLISHED_BINS = 100
_COINCIDING = 1e-7


@dataclass(frozen=True)
class Model:
    """Directions of the quadratic, alike ones together.

    Attributes:
        curvature: (n,) h, positive.
        noise: (n,) c, the variance of one example's gradient.
        count: (n,) how many directions each stands for.
    """

    curvature: FloatArray
    noise: FloatArray
    count: FloatArray

    @property
    def initial_risk(self) -> float:
        """1/2 sum h."""
        return float(self.count @ self.curvature) / 2

    def preconditioned(self, power: float) -> tuple[FloatArray, FloatArray]:
        """h^(1-p) and c h^-p.

        Raises:
            ValueError: a power outside [0, 1].
        """
        if not 0 <= power <= 1:
            raise ValueError(f"power is {power}: give a number from 0 to 1")
        return self.curvature ** (1 - power), self.noise * self.curvature**-power


def power_law(
    dimension: int = 10_000,
    exponent: float = 1.0,
    noise_exponent: float = 1.0,
    noise_scale: float = 1.0,
    bins: int = 100,
) -> Model:
    """h_i = i^-exponent and c = noise_scale h^noise_exponent; the first directions one by one, the rest in bins.

    The bins keep count and trace of h.
    """
    first = min(dimension, bins // 3)
    edges = np.unique(np.geomspace(first + 1, dimension + 1, bins - first + 1).astype(np.int64))
    edges = np.unique(np.concatenate([np.arange(1, first + 1), edges, [dimension + 1]]))
    count = np.diff(edges).astype(np.float64)
    trace = np.add.reduceat(np.arange(1, dimension + 1.0) ** -exponent, edges[:-1] - 1)
    curvature = trace / count
    return Model(curvature, noise_scale * curvature**noise_exponent, count)


def published(dimension: int = 10_000) -> Model:
    """The model of the published figures: eigenvalues 1/i floored to the edges of geomspace(1, 1/d, 100); C = H."""
    edges = np.geomspace(1.0, 1.0 / dimension, _PUBLISHED_BINS)
    eigenvalues = 1.0 / np.arange(1, dimension + 1.0)
    place = np.searchsorted(-edges, -eigenvalues * (1 + 1e-9), side="left")
    used, count = np.unique(np.minimum(place, _PUBLISHED_BINS - 1), return_counts=True)
    return Model(edges[used], edges[used], count.astype(np.float64))


def risk(
    model: Model,
    optimizer: str,
    updates: ArrayLike,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    coefficient: ArrayLike = 0.0,
    power: float = 0.0,
) -> FloatArray:
    """Expected risk after `updates`, of the averaged iterates for "ema"; infinite where the optimiser diverges.

    Eqs. 4, 6 and 12 with their sums in full. All arguments broadcast; the result has their common shape.
    """
    arguments = np.broadcast_arrays(updates, learning_rate, batch_size, coefficient)
    t, rate, batch, beta = (np.asarray(x, dtype=np.float64)[..., None] for x in arguments)
    signal, noise = second_moments(model, optimizer, t, rate, beta, power)
    with np.errstate(invalid="ignore", over="ignore"):
        total = (model.count * (signal + noise / batch)).sum(axis=-1)
    return np.where(np.isfinite(total), total, np.inf)


def second_moments(
    model: Model,
    optimizer: str,
    t: FloatArray,
    rate: FloatArray | np.float64,
    beta: FloatArray | np.float64,
    power: float,
) -> tuple[FloatArray, FloatArray]:
    """(..., n) what is left of the starting risk, and the noise's part at batch size 1."""
    h, c = model.preconditioned(power)
    start = model.curvature / 2
    if optimizer == "sgd":
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            left = np.where(t == 0, 1.0, np.exp(2 * t * np.log(np.abs(1 - rate * h))))
            steady = rate * c / (2 * (2 - rate * h))
            stable = rate * h < 2
            return np.where(stable, left * start, np.inf), np.where(stable, (1 - left) * steady, np.inf)
    if optimizer == "momentum":
        trace, product, weight, lag = 1 - rate * h + beta, beta + 0 * h, rate**2, beta + 0 * h
    elif optimizer == "nesterov":
        trace, product, weight, lag = (1 + beta) * (1 - rate * h), beta * (1 - rate * h), rate**2, beta * (1 - rate * h)
    elif optimizer == "ema":
        kept = 1 - rate * h
        trace, product, weight, lag = kept + beta, beta * kept, (rate * (1 - beta)) ** 2, beta * kept
    else:
        raise ValueError(f"no optimizer {optimizer!r}: sgd, momentum, nesterov or ema")
    root = np.sqrt((trace**2 - 4 * product).astype(np.complex128))
    # Where the roots coincide they are taken a hair's breadth apart: their limit, to about seven digits.
    root = np.where(np.abs(root) < _COINCIDING, _COINCIDING, root)
    first, second = (trace + root) / 2, (trace - root) / 2
    with np.errstate(all="ignore"):
        at, after = ((first**k - second**k) / root for k in (t, t + 1))
        left = np.real(after - lag * at) ** 2
        sums = _geometric(first**2, t) + _geometric(second**2, t) - 2 * _geometric(first * second, t)
        noise = 0.5 * h * c * weight * np.real(sums / root**2)
    stable = np.maximum(np.abs(first), np.abs(second)) < 1
    return np.where(stable, left * start, np.inf), np.where(stable, noise, np.inf)


def _geometric(ratio: FloatArray, terms: FloatArray) -> FloatArray:
    """Sum of ratio^k for k from 1 to `terms`."""
    return ratio * (1 - ratio**terms) / (1 - ratio)


def noise_scales(model: Model, left: FloatArray, noise: FloatArray, batch_size: ArrayLike) -> dict[str, FloatArray]:
    """The moments behind both noise scales, where the model is known (McCandlish et al. 2018, eqs. 2.8 and 2.9).

    Args:
        model: the model.
        left, noise: (..., n) what `second_moments` returns.
        batch_size: (...,) examples per update.

    Returns:
        grad_sq_norm, the expected |G|^2; trace_cov, tr(Sigma) of one example; noise_scale, their ratio B_simple;
        hessian_noise_scale, B_noise = tr(H Sigma) / E[G^T H G]; each (...,).
    """
    parts = model.count * (left + noise / np.asarray(batch_size, dtype=np.float64)[..., None])
    grad_sq_norm, curved = (2 * (parts @ model.curvature**power) for power in (1, 2))
    trace = np.full_like(grad_sq_norm, model.count @ model.noise)
    return {
        "grad_sq_norm": grad_sq_norm,
        "trace_cov": trace,
        "noise_scale": trace / grad_sq_norm,
        "hessian_noise_scale": (model.count * model.curvature) @ model.noise / curved,
    }
