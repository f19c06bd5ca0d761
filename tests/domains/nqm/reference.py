"""Naive versions: one update after another, one dimension at a time, one grid point at a time. And random settings."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
from hypothesis import strategies as st

from rl_scaling.domains.nqm.config import OPTIMIZERS
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.response import Modes

TWO_ROOTS = [name for name in OPTIMIZERS if not find_optimizer(name).averaged]
names = st.sampled_from(TWO_ROOTS)
coefficients = st.one_of(st.just(0.0), st.floats(-6, 0).map(lambda x: 1 - 10**x))
rates = st.one_of(st.floats(-12, 0).map(lambda x: 10**x), st.floats(0.5, 3.999))


def modes_of(name: str, rate: float, coefficient: float) -> Modes:
    """The modes of one dimension with alpha h = `rate`."""
    return find_optimizer(name).modes(np.array([rate]), np.array([coefficient]))


def decimal_moment(optimizer: str, rate: float, coefficient: float, steps: int, variance: float) -> float:
    """E y(t)^2 from E y(0)^2 = 1 with noise of the given variance in each step, in numbers of 50 digits.

    Expands y(t) = weight * y(0) + sum of responses, each followed through the updates as the optimiser makes them.
    """
    with localcontext() as context:
        context.prec = 50
        x, c = Decimal(rate), Decimal(coefficient)
        weight = _follow(optimizer, x, c, steps, Decimal(1), Decimal(0))[-1]
        response = _follow(optimizer, x, c, steps, Decimal(0), Decimal(1))[1:]
        return float(weight**2 + Decimal(variance) * sum((u * u for u in response), Decimal(0)))


def _follow(optimizer: str, x: Decimal, c: Decimal, steps: int, start: Decimal, kick: Decimal) -> list[Decimal]:
    """The iterate (or its average) after 0 .. steps updates; `kick` is added to the first gradient step."""
    theta, velocity, average, seen = start, Decimal(0), start, [start]
    for t in range(steps):
        push = kick if t == 0 else Decimal(0)
        if optimizer == "nesterov":
            velocity = c * velocity - x * (theta + c * velocity) + push
        elif optimizer == "momentum":
            velocity = c * velocity - x * theta + push
        else:
            velocity = -x * theta + push
        theta = theta + velocity
        average = c * average + (1 - c) * theta
        seen.append(average if optimizer == "ema" else theta)
    return seen


def published_spectrum() -> tuple[np.ndarray, np.ndarray]:
    """Edges and counts: each 1/i, from the largest down, goes to the first edge of the bins that is not above it."""
    edges = [10 ** (-4 * k / 99) for k in range(100)]
    counts = [0] * 100
    for i in range(1, 10_001):
        below = [k for k in range(100) if edges[k] <= 1 / i * (1 + 1e-12)]
        counts[below[0]] += 1
    used = [k for k in range(100) if counts[k]]
    return np.array([edges[k] for k in used]), np.array([float(counts[k]) for k in used])


def published_steps(optimizer: str, batch_size: float, power: float, points: list[tuple[float, float]]) -> list[int]:
    """For each (learning rate, coefficient): the last step above 0.01 that a plain bisection finds."""
    h, counts = published_spectrum()
    results = []
    for rate, coefficient in points:
        low, high = 0, 10**9 if optimizer == "sgd" else 10**7
        while low < high - 1:
            middle = (low + high) // 2
            moments = _published_moments(
                optimizer, h, rate * h ** (1 - power), coefficient, middle, rate, batch_size, power
            )
            if 0.5 * np.sum(counts * h * moments) < 0.01:
                high = middle
            else:
                low = middle
        results.append(max(low, 1) if optimizer == "sgd" else low)
    return results


def _published_moments(
    optimizer: str, h: np.ndarray, x: np.ndarray, c: float, steps: int, rate: float, batch_size: float, power: float
) -> np.ndarray:
    """E theta^2: eq. 4 with 10^-8 in the denominator for SGD, the powers of a matrix of moments for the others."""
    noise = (rate * h**-power) ** 2 * h / batch_size
    with np.errstate(all="ignore"):
        if optimizer == "sgd":
            limit = noise / (1 - (1 - x) ** 2 + 1e-8)
            return limit + (1 - x) ** (2 * steps) * (1 - limit)
        zero = 0 * x
        if optimizer == "momentum":
            a, b = np.array([[1 - x, c + zero], [-x, c + zero]]), np.array([1.0, 1.0])
            first, watched = np.array([1.0, 0.0]), 0
        else:
            a, b = np.array([[1 - x, zero], [(1 - c) * (1 - x), c + zero]]), np.array([1.0, 1 - c])
            first, watched = np.array([1.0, 1.0]), 1
        a = np.moveaxis(a, 2, 0)
        # (vec of the second moments, 1) after one step is a linear map; its power is taken by repeated squaring
        size = len(h)
        lifted = np.zeros((size, 5, 5))
        lifted[:, :4, :4] = np.einsum("nij,nkl->nikjl", a, a).reshape(size, 4, 4)
        lifted[:, :4, 4] = noise[:, None] * np.outer(b, b).ravel()
        lifted[:, 4, 4] = 1
        state = np.append(np.outer(first, first).ravel(), 1.0)
        return (np.linalg.matrix_power(lifted, steps) @ state)[:, 3 * watched]
