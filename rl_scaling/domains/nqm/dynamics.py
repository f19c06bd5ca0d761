"""Expected risk and gradient noise scales with constant rates after any number of steps, in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rl_scaling.domains.nqm.optimizers import (
    Optimizer,
    averaged_momentum_moments,
    close_averaged_momentum_moments,
    find_optimizer,
    nesterov_modes,
)
from rl_scaling.domains.nqm.spectrum import FloatArray, Spectrum

MOST_STEPS = 10**15
CHUNK_ELEMENTS = 1 << 15
"""Settings times groups that are worked on at a time: what fits a core's cache."""


def risk(
    spectrum: Spectrum,
    steps: ArrayLike,
    *,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    optimizer: str = "sgd",
    coefficient: ArrayLike = 0.0,
    averaging: ArrayLike = 0.0,
    power: float = 0.0,
) -> FloatArray:
    """Expected risk after t steps: 1/2 sum_i h_i (d_t^2 E theta_i(0)^2 + S_t alpha^2 c_i / B), exact.

    Agrees with the recursion to 12 digits for every t, coefficient and learning rate (docs/noisy-quadratic-model.md).
    Steps, learning rates, batch sizes and coefficients broadcast against each other; every element takes the same time.

    Args:
        steps: t, whole numbers of updates from 0, up to 10^15.
        learning_rate: alpha > 0.
        batch_size: B > 0 examples, need not be whole; infinite for no noise.
        optimizer: sgd, momentum (heavy ball), nesterov, ema (the moving average of SGD's iterates), momentum-ema or
            nesterov-ema (that of a momentum's iterates).
        coefficient: of the momentum, and for "ema" of the average, in [0, 1).
        averaging: of the average over a momentum's iterates, in [0, 1).
        power: of the preconditioner H^power, in [0, 1].

    Returns:
        Risks, of the broadcast shape; infinite where the optimiser diverges, whatever t > 0.

    Raises:
        ValueError: an argument outside its range, or shapes that do not broadcast.

    >>> risk(Spectrum.power_law(), [0, 1000, 2000], learning_rate=0.1, batch_size=64).round(4)
    array([4.8938, 1.6799, 1.3435])
    """
    settings = check_settings(learning_rate, batch_size, coefficient, steps, averaging)
    return risk_behind(find_optimizer(optimizer), spectrum.preconditioned(power), settings)


def risk_behind(
    found: Optimizer, problem: Spectrum, settings: list[FloatArray], *, for_search: bool = False
) -> FloatArray:
    """`risk` of the problem behind the preconditioner, with settings from `check_settings`.

    Args:
        for_search: averages of momentum by a formula twenty times as fast, which loses digits where roots coincide.
    """
    values = np.empty(settings[0].size)
    for part, (rate, batch, beta, t, gamma) in _chunks(settings, problem):
        scaled = rate * problem.eigenvalues
        modes = found.modes(scaled, beta)
        if not found.averaged:
            start, noise = found.moments(modes, t)
        elif for_search:
            start, noise = close_averaged_momentum_moments(modes, gamma, t)
        else:
            start, noise = averaged_momentum_moments(scaled, beta, gamma, t, nesterov=found.modes is nesterov_modes)
        values[part] = _total(problem, start, modes.gain * noise, rate**2 / batch)
        values[part][~modes.stable.all(axis=-1)] = np.inf
        values[part][t[:, 0] == 0] = problem.initial_risk
    return values.reshape(settings[0].shape)


def steady_state_risk(
    spectrum: Spectrum,
    *,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    optimizer: str = "sgd",
    coefficient: ArrayLike = 0.0,
    averaging: ArrayLike = 0.0,
    power: float = 0.0,
) -> FloatArray:
    """The risk after infinitely many steps (the last terms of eq. 4, 6, 10 and 12); infinite where diverging.

    >>> float(steady_state_risk(Spectrum.from_eigenvalues([1.0]), learning_rate=1.0, batch_size=2.0))
    0.25
    """
    found, problem = find_optimizer(optimizer), spectrum.preconditioned(power)
    if found.averaged:
        settings = {"learning_rate": learning_rate, "coefficient": coefficient, "averaging": averaging, "power": power}
        return risk(spectrum, MOST_STEPS, batch_size=batch_size, optimizer=optimizer, **settings)
    settings = check_settings(learning_rate, batch_size, coefficient)
    values = np.empty(settings[0].size)
    for part, (rate, batch, beta, *_) in _chunks(settings, problem):
        limit = found.modes(rate * problem.eigenvalues, beta).steady_state()
        values[part] = _total(problem, np.zeros_like(limit), limit, rate**2 / batch)
    return values.reshape(settings[0].shape)


def convergence_rate(
    spectrum: Spectrum,
    *,
    learning_rate: ArrayLike,
    optimizer: str = "sgd",
    coefficient: ArrayLike = 0.0,
    averaging: ArrayLike = 0.0,
    power: float = 0.0,
) -> FloatArray:
    """-log of the slowest mode's |root|: the risk's excess over its steady state falls as exp(-2 rate t) in the end.

    Negative or NaN where the optimiser diverges.

    >>> float(convergence_rate(Spectrum.from_eigenvalues([1.0, 0.5]), learning_rate=1.0).round(6))
    0.693147
    """
    found, problem = find_optimizer(optimizer), spectrum.preconditioned(power)
    settings = check_settings(learning_rate, 1.0, coefficient, averaging=averaging)
    values = np.empty(settings[0].size)
    for part, (rate, _, beta, _, gamma) in _chunks(settings, problem):
        modes = found.modes(rate * problem.eigenvalues, beta)
        values[part] = np.where(modes.stable, -modes.log_radius, np.nan).min(axis=-1)
        if found.averaged:
            with np.errstate(divide="ignore"):
                values[part] = np.minimum(values[part], -np.log(gamma[:, 0]))
    return values.reshape(settings[0].shape)


def diverges(
    spectrum: Spectrum,
    *,
    learning_rate: ArrayLike,
    optimizer: str = "sgd",
    coefficient: ArrayLike = 0.0,
    power: float = 0.0,
) -> NDArray[np.bool_]:
    """Whether a dimension's recursion is unstable: alpha h >= 2 for SGD, >= 2 (1 + beta) for heavy ball.

    >>> diverges(Spectrum.from_eigenvalues([1.0]), learning_rate=[1.9, 2.0])
    array([False,  True])
    """
    settings = {"learning_rate": learning_rate, "optimizer": optimizer, "coefficient": coefficient, "power": power}
    return np.isnan(convergence_rate(spectrum, **settings))


def check_settings(
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    coefficient: ArrayLike,
    steps: ArrayLike = 0,
    averaging: ArrayLike = 0.0,
) -> list[FloatArray]:
    """The arguments as arrays of one shape; ValueError for a number outside its range."""
    arrays = [np.asarray(x, dtype=np.float64) for x in (learning_rate, batch_size, coefficient, steps, averaging)]
    rate, batch, beta, t, gamma = arrays
    if not np.all((rate > 0) & np.isfinite(rate)):
        raise ValueError("learning rates must be positive numbers")
    if not np.all(batch > 0):
        raise ValueError("batch sizes must be positive")
    if not (np.all((beta >= 0) & (beta < 1)) and np.all((gamma >= 0) & (gamma < 1))):
        raise ValueError("coefficients of momentum and averaging must lie in [0, 1)")
    if not np.all((t >= 0) & (t == np.floor(t)) & (t <= MOST_STEPS)):
        raise ValueError("steps must be whole numbers from 0 to 10^15")
    return list(np.broadcast_arrays(*arrays))


def _chunks(settings: list[FloatArray], problem: Spectrum) -> Iterator[tuple[slice, list[FloatArray]]]:
    """Parts of the flattened settings as columns (k, 1), to stand beside the groups on the last axis."""
    flat = [np.ravel(setting)[:, None] for setting in settings]
    size = max(1, CHUNK_ELEMENTS // len(problem.counts))
    for begin in range(0, len(flat[0]), size):
        part = slice(begin, begin + size)
        yield part, [setting[part] for setting in flat]


def _total(problem: Spectrum, start: FloatArray, noise: FloatArray, scale: FloatArray) -> FloatArray:
    """1/2 sum h (start E theta(0)^2 + scale noise c), (k,), from (k, n) responses and a (k, 1) noise scale."""
    weight = problem.weights
    with np.errstate(over="ignore", invalid="ignore"):
        return start @ (weight * problem.initial) + scale[:, 0] * (noise @ (weight * problem.noise))


@dataclass(frozen=True, eq=False)
class ModelNoiseScales:
    """The gradient noise scales after given numbers of steps (McCandlish et al. 2018); all arrays (n,).

    Expectations are over the distribution of theta. The scales are ratios of expectations, which is what
    accumulating |G|^2 and tr(Sigma) over runs estimates.

    Attributes:
        steps: t.
        grad_sq_norm: E |G|^2 = sum h^2 E theta^2.
        grad_curvature: E G'HG = sum h^3 E theta^2.
        trace_cov: tr(Sigma) = sum c.
        hessian_trace_cov: tr(H Sigma) = sum h c.
    """

    steps: FloatArray
    grad_sq_norm: FloatArray
    grad_curvature: FloatArray
    trace_cov: float
    hessian_trace_cov: float

    @property
    def b_simple(self) -> FloatArray:
        """tr(Sigma) / |G|^2, examples (eq. 2.9)."""
        return self.trace_cov / self.grad_sq_norm

    @property
    def b_noise(self) -> FloatArray:
        """tr(H Sigma) / G'HG, examples (eq. 2.8)."""
        return self.hessian_trace_cov / self.grad_curvature


def noise_scales(
    spectrum: Spectrum,
    steps: ArrayLike,
    *,
    learning_rate: float,
    batch_size: float,
    optimizer: str = "sgd",
    coefficient: float = 0.0,
    power: float = 0.0,
    preconditioned: bool = True,
) -> ModelNoiseScales:
    """B_simple and B_noise at the optimiser's iterates after `steps`; arguments as in `risk`.

    Of an average these are the iterates that it averages, where the gradients are taken.

    With a preconditioner they are those of the problem behind it, in which the optimiser is plain: the scales that
    then predict its critical batch size. `preconditioned=False` gives those of the gradients as they are drawn, which
    is what a measurement that knows nothing of the preconditioner sees.

    Raises:
        ValueError: an argument outside its range, or a setting that diverges.

    >>> scales = noise_scales(Spectrum.power_law(), [0, 1000], learning_rate=0.1, batch_size=64)
    >>> scales.b_simple.round(1), scales.b_noise.round(1)
    (array([   6. , 1571.3]), array([1.400e+00, 1.631e+03]))
    """
    found, problem = find_optimizer("sgd" if optimizer == "ema" else optimizer), spectrum.preconditioned(power)
    t = np.atleast_1d(np.asarray(steps, dtype=np.float64))
    check_settings(learning_rate, batch_size, coefficient, t)
    h = problem.eigenvalues
    modes = found.modes(learning_rate * h, np.asarray(coefficient, dtype=np.float64))
    if not modes.stable.all():
        raise ValueError("this setting diverges: choose a smaller learning rate")
    start, noise = found.moments(modes, t[:, None])
    squares = start * problem.initial + learning_rate**2 / batch_size * modes.gain * noise * problem.noise
    squares = squares * problem.counts
    if not preconditioned:
        problem, squares, h = spectrum, squares / spectrum.eigenvalues**power, spectrum.eigenvalues
    return ModelNoiseScales(
        steps=t,
        grad_sq_norm=squares @ h**2,
        grad_curvature=squares @ h**3,
        trace_cov=float(problem.counts @ problem.noise),
        hessian_trace_cov=float(problem.counts @ (h * problem.noise)),
    )
