"""How exact the model is on this machine: every formula against something that does not use it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.config import OPTIMIZERS
from rl_scaling.domains.nqm.dynamics import risk
from rl_scaling.domains.nqm.hits import find_hits
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.stepwise import Method, risk_curve, simulate

DIGITS = 60
Matrix = NDArray[np.object_]


@dataclass(frozen=True)
class Check:
    """One row of the table: what was compared, in how many cases, and the largest difference found.

    Attributes:
        unit: of the difference: "relative" or "standard errors".
    """

    compared: str
    cases: int
    largest_difference: float
    unit: str = "relative"


def exactness(*, cases: int, seed: int) -> list[Check]:
    """All checks, in some seconds: the table in docs/noisy-quadratic-model.md.

    Args:
        cases: random settings for each row of the first part.
        seed: where they and the simulated runs come from.
    """
    rows = [_closed_form(name, longest, cases, seed) for name in _TWO_ROOTS for longest in (10**3, 10**9)]
    rows += [_other_noise(name, max(cases // 10, 1), seed) for name in _TWO_ROOTS]
    rows.append(_averaged(max(cases // 10, 1), seed))
    rows += [_recursion(name, seed) for name in _TWO_ROOTS]
    rows += [_monte_carlo(*named, seed=100 * seed + i) for i, named in enumerate(_SIMULATED.items())]
    return [*rows, *_compression((64, 128, 256))]


def exact_moment(transition: Matrix, noise: Matrix, start: Matrix, steps: int) -> Decimal:
    """E x_last^2 after `steps` of x' = A x + b xi, from the products of matrices in decimal numbers of 60 digits.

    Args:
        transition: (k, k) A; noise: (k,) b; start: (k,) x(0), times a random number of variance 1. All Decimal.

    >>> half = Decimal("0.5")
    >>> exact_moment(np.array([[half]]), np.array([Decimal(1)]), np.array([Decimal(1)]), 2)   # 1/16 + 1 + 1/4
    Decimal('1.3125')
    """
    with localcontext() as context:
        context.prec = DIGITS
        weight, total = np.array(start), np.outer(noise * 0, noise)
        spread = np.outer(noise, noise)
        while steps:
            if steps % 2:
                weight, total = transition @ weight, transition @ total @ transition.T + spread
            spread = spread + transition @ spread @ transition.T
            transition = transition @ transition
            steps //= 2
        return weight[-1] ** 2 + total[-1, -1]


def _updates(name: str, x: Decimal, coefficient: Decimal) -> tuple[list[list[Decimal]], list[Decimal]]:
    """A and b of x' = A x + b xi for one update as the optimiser makes it; theta, or its average, comes last."""
    zero, one = Decimal(0), Decimal(1)
    if name == "ema":
        fresh = 1 - coefficient
        return [[1 - x, zero], [fresh * (1 - x), coefficient]], [one, fresh]
    keep = {"sgd": zero, "momentum": coefficient, "nesterov": coefficient * (1 - x)}[name]
    return [[keep, -x], [keep, 1 - x]], [one, one]


_TWO_ROOTS = [name for name in OPTIMIZERS if not find_optimizer(name).averaged]
_SIMULATED = {
    "SGD": Method(),
    "heavy ball": Method(momentum=0.9),
    "Nesterov": Method(momentum=0.9, nesterov=True),
    "moving average of heavy ball, power 0.5": Method(momentum=0.8, averaging=0.9, power=0.5),
    "SGD with state-dependent noise": Method(multiplicative=1.0),
}
_NEAR_BEST = (
    {"learning_rate": 0.2, "batch_size": 64},
    {"learning_rate": 1.9, "batch_size": 4096},
    {"learning_rate": 0.1, "batch_size": 4096, "optimizer": "momentum", "coefficient": 0.992},
    {"learning_rate": 3.7, "batch_size": 2.0**40, "optimizer": "momentum", "coefficient": 0.96},
    {"learning_rate": 1.9, "batch_size": 64, "optimizer": "ema", "coefficient": 0.9996},
    {"learning_rate": 0.006, "batch_size": 64, "power": 0.5},
)


def _closed_form(name: str, longest: int, cases: int, seed: int) -> Check:
    """One dimension, h = 1: the risk against decimal matrix products, over random stable settings.

    Oscillations are followed for at most 1000 radians: the phase t phi is known to rounding of phi only.
    """
    rng = np.random.default_rng([seed, longest])
    worst, done = 0.0, 0
    while done < cases:
        rate, beta = _random_setting(rng, name)
        steps = int(10 ** rng.uniform(0, np.log10(longest)))
        modes = find_optimizer(name).modes(np.array([rate]), np.array([beta]))
        turns = steps * float(modes.phase[0][0]) if modes.oscillates[0] else 0.0
        if not modes.stable[0] or turns > 1000:
            continue
        batch = 10 ** rng.uniform(-3, 3)
        problem = Spectrum.from_eigenvalues([1.0], noise=[rate**-2])
        value = float(risk(problem, steps, learning_rate=rate, batch_size=batch, optimizer=name, coefficient=beta))
        variance = Decimal(rate) ** 2 * Decimal(rate**-2) / Decimal(batch)
        worst = max(worst, _difference(value, _decimal_moment(name, rate, beta, steps, variance, 1.0) / 2))
        done += 1
    return Check(f"{name}, t to 10^{round(np.log10(longest))}: closed form, recursion in 60 digits", cases, worst)


def _random_setting(rng: np.random.Generator, name: str) -> tuple[float, float]:
    """A rate alpha h from 10^-12 to past the limit, and a coefficient up to 1 - 10^-6; a quarter critically damped."""
    beta = 0.0 if name == "sgd" else 1 - 10 ** rng.uniform(-6, 0)
    critical = {"momentum": (1 - np.sqrt(beta)) ** 2, "nesterov": ((1 - beta) / (1 + beta)) ** 2, "ema": 1 - beta}
    if name in critical and rng.random() < 0.25:
        return critical[name] * (1 + rng.choice([0.0, 1e-15, -1e-12, 1e-8])), beta
    return (rng.uniform(0.5, 4) if rng.random() < 0.25 else 10 ** rng.uniform(-12, 0)), beta


def _decimal_moment(name: str, rate: float, beta: float, steps: int, variance: Decimal, start: float) -> Decimal:
    """E y(t)^2 of one dimension: `rate` is alpha h, `variance` that of a step's noise, `start` the moment at 0."""
    with localcontext() as context:
        context.prec = DIGITS
        rows, noise = _updates(name, Decimal(rate), Decimal(beta))
        begins = [Decimal(int(name == "ema" or i == len(rows) - 1)) for i in range(len(rows))]
        scaled = np.array(noise) * variance.sqrt(), np.array(begins) * Decimal(start).sqrt()
        return exact_moment(np.array(rows), *scaled, steps)


def _other_noise(name: str, cases: int, seed: int) -> Check:
    """Eight dimensions whose noise is not C = H, behind preconditioners of several powers, t to 10^3."""
    rng = np.random.default_rng([seed, 3])
    worst = 0.0
    for _ in range(cases):
        exponent, of_noise, power = rng.uniform(0.5, 2), rng.uniform(0, 5), rng.choice([0.0, 0.5, 1.0])
        problem = Spectrum.power_law(8, exponent, noise_exponent=of_noise, initial_exponent=rng.uniform(-1, 1))
        rate, beta = float(rng.uniform(0.01, 1.3)), 0.0 if name == "sgd" else 1 - 10 ** rng.uniform(-3, 0)
        steps, batch = int(10 ** rng.uniform(0, 3)), 10 ** rng.uniform(-3, 3)
        settings = {"learning_rate": rate, "batch_size": batch, "optimizer": name, "coefficient": beta}
        behind, exact = problem.preconditioned(power), Decimal(0)
        columns = (x.tolist() for x in (behind.eigenvalues, behind.noise, behind.initial))
        for h, c, start in zip(*columns, strict=True):
            variance = Decimal(rate) ** 2 * Decimal(c) / Decimal(batch)
            exact += Decimal(h) / 2 * _decimal_moment(name, rate * h, beta, steps, variance, start)
        worst = max(worst, _difference(float(risk(problem, steps, power=power, **settings)), exact))
    return Check(f"{name}, C other than H: closed form, recursion in 60 digits", cases, worst)


def _averaged(cases: int, seed: int) -> Check:
    """The average over heavy ball, by doubling, against the recursion step by step."""
    rng = np.random.default_rng([seed, 1])
    problem, worst = Spectrum.power_law(1000, bins=20), 0.0
    for _ in range(cases):
        rate, beta, gamma = rng.uniform(0.01, 2), rng.uniform(0, 0.99), rng.uniform(0, 0.999)
        curve = risk_curve(problem, np.full(200, rate), 16, Method(momentum=beta, averaging=gamma))
        steps = np.array([1, 2, 50, 200])
        settings = {"learning_rate": rate, "coefficient": beta, "averaging": gamma, "optimizer": "momentum-ema"}
        values = risk(problem, steps, batch_size=16, **settings)
        worst = max(worst, float(np.max(np.abs(values / curve[steps] - 1))))
    return Check("average of heavy ball: doubling, recursion", cases * 4, worst)


def _recursion(name: str, seed: int) -> Check:
    """2,000 updates of the standard problem in ordinary floating point: what the recursion itself rounds counts too."""
    rng = np.random.default_rng([seed, 2])
    problem, rate = Spectrum.power_law(bins=64), rng.uniform(0.1, 1)
    beta = 0.0 if name == "sgd" else rng.uniform(0.5, 0.95)
    method = Method(averaging=beta) if name == "ema" else Method(momentum=beta, nesterov=name == "nesterov")
    curve = risk_curve(problem, np.full(2000, rate), 64, method)
    values = risk(problem, np.arange(2001), learning_rate=rate, batch_size=64, optimizer=name, coefficient=beta)
    worst = float(np.max(np.abs(values / curve - 1)))
    return Check(f"{name}, d = 10^4, every t to 2,000: closed form, recursion", 2001, worst)


def _monte_carlo(label: str, method: Method, *, seed: int) -> Check:
    """The largest deviation at three times: chance alone makes it exceed 3 in fewer than 1 % of all seeds."""
    problem = Spectrum.power_law(50, bins=50)
    rates = np.full(40, 0.3)
    simulated = simulate(problem, rates, 4, method, runs=20_000, seed=seed)
    at = np.array([2, 10, 40])
    gap = np.abs(simulated.mean - risk_curve(problem, rates, 4, method))[at] / simulated.standard_error[at]
    return Check(f"{label}: recursion, 20,000 simulated runs", 3, float(gap.max()), "standard errors")


def _compression(sizes: tuple[int, ...]) -> list[Check]:
    """Steps to a risk of 0.01 at settings that are near the best of their batch size, of 10^4 listed eigenvalues."""
    listed = _first_hits(Spectrum.power_law(bins=10_000))
    worst = [float(np.max(np.abs(_first_hits(Spectrum.power_law(bins=bins)) / listed - 1))) for bins in sizes]
    return [
        Check(f"steps to 0.01: {bins} groups, 10,000 eigenvalues", len(listed), gap)
        for bins, gap in zip(sizes, worst, strict=True)
    ]


def _first_hits(spectrum: Spectrum) -> NDArray[np.float64]:
    hits = [find_hits(spectrum, 0.01, **setting).first for setting in _NEAR_BEST]
    return np.array([np.nan if hit is None else hit for hit in hits], dtype=np.float64)


def _difference(value: float, exact: Decimal) -> float:
    return abs(float((Decimal(value) - exact) / exact))
