from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_scaling.domains.nqm.dynamics import OPTIMIZERS
from rl_scaling.domains.nqm.intervals import start_bounds
from rl_scaling.domains.nqm.response import Modes, second_moments
from rl_scaling.domains.nqm.sgd import sgd_modes, sgd_second_moments
from tests.domains.nqm.reference import decimal_moment

NAMES = [name for name, optimizer in OPTIMIZERS.items() if not optimizer.averaged]
names = st.sampled_from(NAMES)
coefficients = st.one_of(st.just(0.0), st.floats(-6, 0).map(lambda x: 1 - 10**x))
rates = st.one_of(st.floats(-12, 0).map(lambda x: 10**x), st.floats(0.5, 3.999))
nudges = st.sampled_from([None, None, 0.0, 1e-15, -1e-15, 1e-12, -1e-9, 1e-6])
variances = st.floats(-6, 6).map(lambda x: 10**x)


def modes_of(name: str, rate: float, coefficient: float) -> Modes:
    return OPTIMIZERS[name].modes(np.array([rate]), np.array([coefficient]))


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
    start, noise = OPTIMIZERS[name].moments(modes, np.array([float(steps)]))
    exact = decimal_moment(name, rate, coefficient, steps, variance)
    # alone in its dimension a mode may pass through zero: where it does, digits count in units of the turning radius
    scale = max(exact, 1e-3 * float(np.exp(2 * steps * modes.log_radius[0])))
    assert abs(float(start[0] + variance * modes.gain[0] * noise[0]) - exact) <= 1e-12 * scale


@given(st.floats(-9, 0.29).map(lambda x: 10**x), st.integers(1, 10**9))
def test_sgd_agrees_with_the_general_formula(rate: float, steps: int) -> None:
    modes, t = sgd_modes(np.array([rate]), np.zeros(1)), np.array([float(steps)])
    fast, general = sgd_second_moments(modes, t), second_moments(modes, t)
    np.testing.assert_allclose(fast[1], general[1], rtol=1e-13)
    np.testing.assert_allclose(fast[0], general[0], rtol=1e-13, atol=1e-30)


@pytest.mark.parametrize("name", NAMES)
def test_the_limit_is_the_steady_state(name: str) -> None:
    rate, coefficient = np.array([1e-6, 0.1, 1.4]), np.array([0.5])
    modes = OPTIMIZERS[name].modes(rate, coefficient)
    start, noise = OPTIMIZERS[name].moments(modes, np.array([1e10]))
    np.testing.assert_allclose(modes.gain * noise, modes.steady_state(), rtol=1e-13)
    assert np.all(start < 1e-200)


@settings(max_examples=300)
@given(names, rates, coefficients, st.integers(1, 300), st.integers(0, 60))
def test_bounds_hold_over_every_range_of_steps(
    name: str, rate: float, coefficient: float, first: int, more: int
) -> None:
    modes = modes_of(name, rate, coefficient)
    if not modes.stable.all():
        return
    steps = np.arange(first, first + more + 1, dtype=float)
    squares = second_moments(modes, steps)[0]
    low, high = start_bounds(modes, steps[:1], steps[-1:], squares[:1], squares[-1:])
    assert low[0] <= squares.min() * (1 + 1e-9) + 1e-14
    assert high[0] >= squares.max() * (1 - 1e-9) - 1e-14
