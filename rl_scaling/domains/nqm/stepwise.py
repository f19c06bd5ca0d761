"""Update by update: exact second moments and simulated runs, also for schedules and noise that depends on the state.

`simulate` makes the updates themselves and shares no formula with the rest of the package, which it checks. In
`risk_curve` the state of a dimension is (theta, m, average), m the momentum buffer: m' = beta m + gradient, then
theta' = theta - alpha m' with the learning rate of this update (Zhang et al. 2019, eq. 5). Its second moments obey

    P' = A P A' + b b' Var(gradient) / B,

a closed set of equations for every optimiser here, also where learning rate and batch size change with every update.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rl_scaling.domains.nqm.dynamics import check_settings
from rl_scaling.domains.nqm.spectrum import FloatArray, Spectrum


@dataclass(frozen=True)
class Method:
    """The coefficients of an optimiser that the recursion and the simulator follow; the defaults are SGD.

    Attributes:
        momentum: beta in [0, 1).
        nesterov: the gradient is taken at theta - alpha beta m.
        averaging: gamma in [0, 1); the risk is that of the moving average of theta.
        power: of the preconditioner, in [0, 1].
        multiplicative: kappa >= 0, state-dependent noise. The covariance of one example's gradient is
            C + kappa (H theta theta' H + 2 L(theta) H). With kappa = 1 that of least squares with normal inputs of
            covariance H and labels with noise of variance c / h.
    """

    momentum: float = 0.0
    nesterov: bool = False
    averaging: float = 0.0
    power: float = 0.0
    multiplicative: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.momentum < 1 and 0 <= self.averaging < 1):
            raise ValueError("coefficients of momentum and averaging must lie in [0, 1)")
        if not 0 <= self.power <= 1:
            raise ValueError(f"the preconditioner's power is {self.power}: give a number from 0 to 1")
        if not self.multiplicative >= 0:
            raise ValueError(f"multiplicative is {self.multiplicative}: give 0 or more")


def risk_curve(
    spectrum: Spectrum, learning_rates: ArrayLike, batch_sizes: ArrayLike, method: Method | None = None
) -> FloatArray:
    """Expected risk after 0, 1, ..., T updates with the given rate and batch size at each.

    Takes time in proportion to T; for constant rates `risk` is exact too and takes none.

    Args:
        learning_rates: (T,) positive, or 0 for a pause.
        batch_sizes: (T,) or one number, positive.

    Returns:
        (T + 1,) risks; they grow without bound, up to infinity, where the rates diverge.

    Raises:
        ValueError: an argument outside its range.

    >>> from rl_scaling.domains.nqm.dynamics import risk
    >>> problem = Spectrum.power_law(100)
    >>> curve = risk_curve(problem, np.full(50, 0.5), 16)
    >>> bool(np.isclose(curve[50], risk(problem, 50, learning_rate=0.5, batch_size=16), rtol=1e-13))
    True
    """
    method = method or Method()
    problem = spectrum.preconditioned(method.power)
    rates, batches = check_schedule(learning_rates, batch_sizes)
    h = problem.eigenvalues
    moments = np.zeros((3, 3, len(h)))
    moments[0, 0] = moments[0, 2] = moments[2, 0] = moments[2, 2] = problem.initial
    risks = np.empty(len(rates) + 1)
    risks[0] = problem.weights @ moments[2, 2]
    with np.errstate(over="ignore", invalid="ignore"):
        for t, (rate, batch) in enumerate(zip(rates, batches, strict=True)):
            variance = _gradient_variance(problem, method, moments, rate) / batch
            step, noise = _one_step(rate, h, method)
            moments = np.einsum("ikn,kln,jln->ijn", step, moments, step) + noise[:, None] * noise[None, :] * variance
            risks[t + 1] = problem.weights @ moments[2, 2]
    return np.where(np.isnan(risks), np.inf, risks)


def check_schedule(learning_rates: ArrayLike, batch_sizes: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """(T,) learning rates and batch sizes; ValueError where they are not one or are outside their range."""
    rates = np.asarray(learning_rates, dtype=np.float64)
    if rates.ndim != 1 or not np.all((rates >= 0) & np.isfinite(rates)):
        raise ValueError("learning rates must be one list of numbers, none negative")
    batches = np.asarray(batch_sizes, dtype=np.float64)
    if batches.shape not in ((), rates.shape):
        raise ValueError(f"batch sizes are {batches.size} for {rates.size} learning rates: give one, or one for each")
    batches = np.broadcast_to(batches, rates.shape)
    check_settings(1.0, batches, 0.0)
    return rates, batches


def _gradient_variance(problem: Spectrum, method: Method, moments: FloatArray, rate: float) -> FloatArray:
    """Diagonal of the covariance of one example's gradient where it is taken, theta - ahead * m."""
    if method.multiplicative == 0:
        return problem.noise
    ahead = rate * method.momentum if method.nesterov else 0.0
    squares = moments[0, 0] - 2 * ahead * moments[0, 1] + ahead**2 * moments[1, 1]
    h = problem.eigenvalues
    twice_risk = float(np.sum(problem.counts * h * squares))
    return problem.noise + method.multiplicative * (h**2 * squares + twice_risk * h)


def _one_step(rate: float, h: FloatArray, method: Method) -> tuple[FloatArray, FloatArray]:
    """A (3, 3, n) and b (3, 1) of x' = A x + b noise for x = (theta, m, average)."""
    zero, gamma = 0 * h, method.averaging
    keep = method.momentum * (1 - rate * h) if method.nesterov else method.momentum + zero
    buffer = np.stack([h, keep, zero])
    theta = np.stack([1 - rate * h, -rate * keep, zero])
    average = (1 - gamma) * theta
    average[2] += gamma
    return np.stack([theta, buffer, average]), np.array([-rate, 1.0, -(1 - gamma) * rate])[:, None]


@dataclass(frozen=True, eq=False)
class SimulatedRisk:
    """Mean risk over the runs after 0 .. T updates, and the standard error of that mean, both (T + 1,)."""

    mean: FloatArray
    standard_error: FloatArray


def simulate(
    spectrum: Spectrum,
    learning_rates: ArrayLike,
    batch_sizes: ArrayLike,
    method: Method | None = None,
    *,
    runs: int = 1000,
    seed: int = 0,
) -> SimulatedRisk:
    """Runs of the optimiser: theta(0) normal, gradients H theta plus normal noise of covariance C / B.

    Args:
        learning_rates, batch_sizes, method: as in `risk_curve`.
        spectrum: groups are listed: its counts must be whole numbers.
        runs: how many, at least 2.

    Raises:
        ValueError: an argument outside its range, counts that are not whole.

    >>> result = simulate(Spectrum.from_eigenvalues([1.0, 0.5]), np.full(3, 0.5), 4, runs=100)
    >>> result.mean.shape
    (4,)
    """
    method = method or Method()
    rates, batches = check_schedule(learning_rates, batch_sizes)
    if runs < 2 or not np.all(spectrum.counts == np.round(spectrum.counts)):
        raise ValueError("give at least 2 runs, and a spectrum whose counts are whole numbers")
    repeats = spectrum.counts.astype(np.int64)
    h, c, start = (np.repeat(x, repeats) for x in (spectrum.eigenvalues, spectrum.noise, spectrum.initial))
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal((runs, len(h))) * np.sqrt(start)
    buffer, average = np.zeros_like(theta), theta.copy()
    losses = [_loss(average, h)]
    for rate, batch in zip(rates, batches, strict=True):
        point = theta - rate * method.momentum * buffer * h**-method.power if method.nesterov else theta
        gradient = h * point + _noise(rng, point, h, c, method.multiplicative) / np.sqrt(batch)
        buffer = method.momentum * buffer + gradient
        theta = theta - rate * h**-method.power * buffer
        average = method.averaging * average + (1 - method.averaging) * theta
        losses.append(_loss(average, h))
    values = np.stack(losses)
    return SimulatedRisk(values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(runs))


def _loss(theta: FloatArray, h: FloatArray) -> FloatArray:
    return 0.5 * (theta**2 @ h)


def _noise(rng: np.random.Generator, theta: FloatArray, h: FloatArray, c: FloatArray, kappa: float) -> FloatArray:
    """Normal with covariance C + kappa (H theta theta' H + 2 L(theta) H), for each run's theta."""
    noise = rng.standard_normal(theta.shape) * np.sqrt(c)
    if kappa == 0:
        return noise
    along = rng.standard_normal((len(theta), 1)) * h * theta
    spread = rng.standard_normal(theta.shape) * np.sqrt(2 * _loss(theta, h)[:, None] * h)
    return noise + np.sqrt(kappa) * (along + spread)
