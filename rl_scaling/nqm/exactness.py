"""How exact the closed forms are, optimiser by optimiser: against the recursion of second moments, and simulation.

Neither knows the closed forms: the recursion multiplies covariances step by step, the simulation draws noise. A longer
table, with decimal arithmetic and compression, is made by `rl_scaling.nqm.checks`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rl_scaling.nqm.config import OPTIMIZERS
from rl_scaling.nqm.dynamics import risk
from rl_scaling.nqm.monte_carlo import simulate
from rl_scaling.nqm.recursion import Method, risk_curve
from rl_scaling.nqm.spectrum import Spectrum

STEPS = 400
SAMPLES, SIMULATED_STEPS = 4_000, 40
_CASES = ((0.3, 0.0, 4.0), (1.2, 0.5, 16.0), (0.05, 0.9, 64.0), (0.4, 0.99, 1024.0))
_POWERS = (0.0, 0.5, 1.0)


def method_of(optimizer: str, coefficient: float, power: float = 0.0) -> Method:
    """What the recursion and the simulation follow for an optimiser of the closed forms."""
    if optimizer == "ema":
        return Method(averaging=coefficient, power=power)
    momentum = 0.0 if optimizer == "sgd" else coefficient
    return Method(momentum=momentum, nesterov=optimizer == "nesterov", power=power)


def exactness(seed: int = 0) -> pd.DataFrame:
    """The closed forms beside both, at several learning rates, coefficients and powers.

    Returns:
        One row per optimiser: optimizer, cases, largest relative error against the recursion over all steps up to
        `STEPS`, largest distance to the simulation in standard errors.
    """
    model, small = Spectrum.power_law(200, bins=60), Spectrum.power_law(10, bins=30)
    steps, rows = np.arange(STEPS + 1), []
    for place, optimizer in enumerate(OPTIMIZERS):
        errors, distances = [], []
        for case, (rate, coefficient, batch) in enumerate(_CASES):
            settings = {"learning_rate": rate, "batch_size": batch, "optimizer": optimizer, "coefficient": coefficient}
            for power in _POWERS:
                curve = risk_curve(model, np.full(STEPS, rate), batch, method_of(optimizer, coefficient, power))
                found = risk(model, steps, power=power, **settings)
                errors.append(float(np.abs(found / curve - 1).max()))
            rates, method = np.full(SIMULATED_STEPS, rate), method_of(optimizer, coefficient)
            drawn = seed * 100 + place * len(_CASES) + case
            simulated = simulate(small, rates, batch, method, runs=SAMPLES, seed=drawn)
            gap = float(risk(small, SIMULATED_STEPS, **settings)) - simulated.mean[-1]
            distances.append(abs(gap) / simulated.standard_error[-1])
        rows.append((optimizer, len(errors), max(errors), float(max(distances))))
    columns = ["optimizer", "cases", "relative_error", "standard_errors"]
    return pd.DataFrame(rows, columns=pd.Index(columns))
