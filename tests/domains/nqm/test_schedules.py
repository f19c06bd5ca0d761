from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.domains.nqm.schedules import (
    best_rates,
    final_risk,
    linear_decay,
    piecewise_constant,
    piecewise_steps_to_target,
    ramp,
)
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.stepwise import risk_curve
from rl_scaling.domains.nqm.tuning import steps_to_target

PROBLEM = Spectrum.power_law(200, bins=30)
log_rates = st.lists(st.floats(-6, 0.6), min_size=1, max_size=5).map(np.array)


@given(log_rates, st.integers(1, 60), st.floats(0, 4))
def test_the_final_risk_equals_the_recursion(point: np.ndarray, updates: int, log_batch: float) -> None:
    value, _ = final_risk(PROBLEM, point, updates, 10**log_batch)
    curve = risk_curve(PROBLEM, piecewise_constant(np.exp(point), [updates] * len(point)), 10**log_batch)
    assert value == pytest.approx(curve[-1], rel=1e-12)


@given(log_rates, st.integers(1, 500), st.floats(0, 4))
def test_the_gradient_equals_finite_differences(point: np.ndarray, updates: int, log_batch: float) -> None:
    value, gradient = final_risk(PROBLEM, point, updates, 10**log_batch)
    step = 1e-5
    for k, unit in enumerate(np.eye(len(point))):
        ends = [final_risk(PROBLEM, point + sign * step * unit, updates, 10**log_batch)[0] for sign in (-1, 1)]
        assert gradient[k] == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-4, abs=1e-6 * value)


def test_the_gradient_is_finite_where_a_step_solves_a_dimension() -> None:
    value, gradient = final_risk(PROBLEM, np.zeros(2), 10, 64)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


def test_optimised_rates_are_a_minimum_within_the_bound() -> None:
    value, rates = best_rates(PROBLEM, 40, 64, np.zeros(4))
    assert np.all(np.exp(rates) < 2 / PROBLEM.eigenvalues[0])
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = np.minimum(rates + rng.normal(0, 0.1, 4), np.log(2) - 1e-6)
        assert final_risk(PROBLEM, other, 40, 64)[0] >= value * (1 - 1e-7)


def test_more_pieces_need_fewer_steps_and_one_piece_is_the_constant_optimum() -> None:
    batches = [4, 64, 1024]
    constant = steps_to_target(batches, spectrum=PROBLEM)
    rows = {pieces: piecewise_steps_to_target(batches, pieces=pieces, spectrum=PROBLEM) for pieces in (1, 4, 16)}
    for i, row in enumerate(constant):
        assert abs(rows[1][i].steps - (row.steps or 0)) <= 1
        assert rows[4][i].steps < rows[1][i].steps
        assert rows[16][i].steps < rows[4][i].steps + 16
        assert rows[4][i].risk <= 0.01
        assert len(rows[4][i].learning_rates) == 4


def test_warm_starts_do_not_change_the_answer() -> None:
    together = piecewise_steps_to_target([4, 64, 1024], pieces=5, spectrum=PROBLEM)
    for row in together:
        (alone,) = piecewise_steps_to_target([row.batch_size], pieces=5, spectrum=PROBLEM)
        assert abs(alone.steps - row.steps) <= 0.01 * row.steps + 5


def test_bad_arguments() -> None:
    for change, message in [({"target": 100.0}, "target"), ({"pieces": 0}, "piece"), ({"power": 3.0}, "power")]:
        with pytest.raises(ValueError, match=message):
            piecewise_steps_to_target([4], spectrum=PROBLEM, **change)
    with pytest.raises(ValueError, match="lengths"):
        piecewise_constant([1.0], [1, 2])
    with pytest.raises(ValueError, match="updates"):
        linear_decay(1.0, 0.5, 0, 3)
    with pytest.raises(ValueError, match="geometric"):
        ramp(0.0, 1.0, 3, geometric=True)
