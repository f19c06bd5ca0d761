"""How exact the closed forms are: against the recursion of second moments, and against simulated updates.

Neither knows the closed forms: the recursion multiplies covariances step by step, the simulation draws noise.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.nqm.closed_form import Model, power_law, risk
from rl_scaling.nqm.config import OPTIMIZERS

FloatArray = NDArray[np.float64]
STEPS = 400
SAMPLES = 4_000
_CASES = ((0.3, 0.0, 4.0), (1.2, 0.5, 16.0), (0.05, 0.9, 64.0), (0.4, 0.99, 1024.0))


def updates_of(optimizer: str, h: FloatArray, rate: float, coefficient: float) -> tuple[FloatArray, FloatArray]:
    """One update of (theta, companion) as matrices: x' = A x + b noise.

    The companion is the momentum buffer, the iterate before (Nesterov) or plain SGD's iterate (average); the first
    entry is what the risk is of.

    Returns:
        (n, 2, 2) A and (n, 2) b.
    """
    one, zero = np.ones_like(h), np.zeros_like(h)
    kept, beta = 1 - rate * h, coefficient
    if optimizer == "sgd":
        rows, noise = [[kept, zero], [zero, zero]], [-rate * one, zero]
    elif optimizer == "momentum":
        rows, noise = [[kept, -rate * beta * one], [h, beta * one]], [-rate * one, one]
    elif optimizer == "nesterov":
        rows, noise = [[(1 + beta) * kept, -beta * kept], [one, zero]], [-rate * one, zero]
    else:
        rows, noise = [[beta * one, (1 - beta) * kept], [zero, kept]], [-(1 - beta) * rate * one, -rate * one]
    return np.moveaxis(np.array(rows), -1, 0), np.stack(noise, axis=-1)


def recursion(
    model: Model, optimizer: str, steps: int, rate: float, batch: float, coefficient: float, power: float
) -> FloatArray:
    """(steps + 1,) the risk from covariances multiplied step by step."""
    h, c = model.preconditioned(power)
    matrix, noise = updates_of(optimizer, h, rate, coefficient)
    added = noise[:, :, None] * noise[:, None, :] * (c / batch)[:, None, None]
    start = _start(optimizer)
    second = (start[:, None] * start) * (model.curvature**power)[:, None, None]
    weights = model.count * h / 2
    found = [weights @ second[:, 0, 0]]
    for _ in range(steps):
        second = matrix @ second @ np.swapaxes(matrix, 1, 2) + added
        found.append(weights @ second[:, 0, 0])
    return np.array(found)


def simulation(
    model: Model, optimizer: str, steps: int, rate: float, batch: float, coefficient: float, rng: np.random.Generator
) -> tuple[float, float]:
    """The mean risk after `steps` of simulated updates without preconditioner, and its standard error."""
    h = np.repeat(model.curvature, model.count.astype(int))
    spread = np.sqrt(np.repeat(model.noise, model.count.astype(int)) / batch)
    matrix, noise = updates_of(optimizer, h, rate, coefficient)
    state = rng.standard_normal((SAMPLES, len(h), 1)) * _start(optimizer)
    for _ in range(steps):
        drawn = spread * rng.standard_normal((SAMPLES, len(h)))
        state = np.einsum("nij,snj->sni", matrix, state) + noise * drawn[..., None]
    risks = (state[..., 0] ** 2) @ h / 2
    return float(risks.mean()), float(risks.std(ddof=1) / np.sqrt(SAMPLES))


def _start(optimizer: str) -> FloatArray:
    """The companion starts at theta(0), the momentum buffer at 0."""
    return np.array([1.0, 1.0 if optimizer in ("nesterov", "ema") else 0.0])


def exactness(seed: int = 0) -> pd.DataFrame:
    """The closed forms beside both, at several learning rates, coefficients and powers.

    Returns:
        One row per optimiser: optimizer, cases, largest relative error against the recursion over all steps up to
        `STEPS`, largest distance to the simulation in standard errors.
    """
    rng = np.random.default_rng(seed)
    model, small = power_law(200, bins=60), power_law(10, bins=30)
    rows = []
    for optimizer in OPTIMIZERS:
        errors, distances = [], []
        for rate, coefficient, batch in _CASES:
            for power in (0.0, 0.5, 1.0):
                steps = np.arange(STEPS + 1)
                exact = recursion(model, optimizer, STEPS, rate, batch, coefficient, power)
                found = risk(model, optimizer, steps, rate, batch, coefficient, power)
                errors.append(float(np.abs(found / exact - 1).max()))
            mean, error = simulation(small, optimizer, 40, rate, batch, coefficient, rng)
            distances.append(abs(float(risk(small, optimizer, 40, rate, batch, coefficient)) - mean) / error)
        rows.append((optimizer, len(errors), max(errors), max(distances)))
    columns = ["optimizer", "cases", "relative_error", "standard_errors"]
    return pd.DataFrame(rows, columns=pd.Index(columns))
