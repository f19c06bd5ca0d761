from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_scaling.domains.nqm.optimizers import find_optimizer
from tests.domains.nqm.reference import coefficients, decimal_moment, modes_of, names, rates

nudges = st.sampled_from([None, None, 0.0, 1e-15, -1e-15, 1e-12, -1e-9, 1e-6])
variances = st.floats(-6, 6).map(lambda x: 10**x)


def critical(name: str, coefficient: float) -> float:
    if name == "momentum":
        return (1 - np.sqrt(coefficient)) ** 2
    return ((1 - coefficient) / (1 + coefficient)) ** 2 if name == "nesterov" else 1 - coefficient


@settings(max_examples=400)
@given(names, rates, coefficients, st.integers(0, 400), variances, nudges)
def test_the_closed_form_equals_the_updates_to_12_digits(
    name: str, rate: float, coefficient: float, steps: int, variance: float, nudge: float | None
) -> None:
    if nudge is not None and name != "sgd" and coefficient > 0:
        rate = critical(name, coefficient) * (1 + nudge)
    modes = modes_of(name, rate, coefficient)
    if not modes.stable.all():
        return
    start, noise = find_optimizer(name).moments(modes, np.array([float(steps)]))
    exact = decimal_moment(name, rate, coefficient, steps, variance)
    # alone in its dimension a mode may pass through zero: where it does, digits count in units of the turning radius
    scale = max(exact, 1e-3 * float(np.exp(2 * steps * modes.log_radius[0])))
    assert abs(float(start[0] + variance * modes.gain[0] * noise[0]) - exact) <= 1e-12 * scale
