from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.domains.nqm.schedules import (
    bayes_bound,
    best_rates,
    estimation_bound,
    examples_for_bayes_bound,
    final_risk,
    linear_decay,
    piecewise_constant,
    piecewise_steps_to_target,
    ramp,
    small_batch_limit,
)
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.stepwise import risk_curve
from rl_scaling.domains.nqm.tuning import steps_to_target

STANDARD = Spectrum.power_law(bins=10_000)


def test_the_standard_problem_needs_495_016_examples() -> None:
    h = 1 / np.arange(1, 10_001)
    assert 0.5 * np.sum(h / (1 + 495_016 * h)) == pytest.approx(0.01, rel=1e-6)
    assert float(bayes_bound(STANDARD, 495_016)) == pytest.approx(0.5 * np.sum(h / (1 + 495_016 * h)), rel=1e-13)
    assert round(examples_for_bayes_bound(STANDARD, 0.01)) == 495_016
    assert float(estimation_bound(STANDARD, 500_000)) == pytest.approx(0.01, rel=1e-12)


@pytest.mark.statistical
def test_the_bayes_bound_is_the_risk_of_the_posterior_mean() -> None:
    """20,000 draws of 3 dimensions: 3 standard errors fail for 0.3 % of seeds."""
    rng = np.random.default_rng(3)
    h, c, start, n = np.array([1.0, 0.5, 0.1]), np.array([2.0, 0.3, 0.1]), np.array([1.0, 3.0, 0.5]), 7
    optimum = rng.standard_normal((20_000, 3)) * np.sqrt(start)
    seen = optimum[:, None] + rng.standard_normal((20_000, n, 3)) * np.sqrt(c) / h
    precision = n * h**2 / c
    error = optimum - seen.mean(axis=1) * precision / (precision + 1 / start)
    losses = 0.5 * (error**2 @ h)
    bound = float(bayes_bound(Spectrum.from_eigenvalues(h, c, start), n))
    assert abs(losses.mean() - bound) < 3 * losses.std() / np.sqrt(len(losses))


def test_bounds_of_edge_cases() -> None:
    quiet = Spectrum.from_eigenvalues([1.0], noise=[0.0])
    assert examples_for_bayes_bound(quiet, 0.01) == 0
    assert examples_for_bayes_bound(STANDARD, 100.0) == 0
    for bad in (lambda: bayes_bound(STANDARD, 0), lambda: examples_for_bayes_bound(STANDARD, -1.0)):
        with pytest.raises(ValueError, match="positive"):
            bad()
    with pytest.raises(ValueError, match="target"):
        small_batch_limit(STANDARD, 10.0)
    with pytest.raises(ValueError, match="noise"):
        small_batch_limit(quiet, 0.01)


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
