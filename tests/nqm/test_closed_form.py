"""The closed forms against recursions, simulations and the facts of the published figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_scaling.nqm import power_law, published, risk
from rl_scaling.nqm.closed_form import noise_scales, second_moments
from rl_scaling.nqm.config import OPTIMIZERS
from rl_scaling.nqm.exactness import exactness, recursion, simulation

SMALL = power_law(50, bins=30)


@given(
    optimizer=st.sampled_from(OPTIMIZERS),
    rate=st.floats(1e-3, 1.5),
    coefficient=st.floats(0, 0.98),
    power=st.floats(0, 1),
    batch=st.floats(0.5, 1e6),
)
@settings(max_examples=60)
def test_the_closed_form_is_the_recursion(
    optimizer: str, rate: float, coefficient: float, power: float, batch: float
) -> None:
    exact = recursion(SMALL, optimizer, 60, rate, batch, coefficient, power)
    found = risk(SMALL, optimizer, np.arange(61), rate, batch, coefficient, power)
    diverges = ~np.isfinite(found)
    np.testing.assert_allclose(found[~diverges], exact[~diverges], rtol=1e-5)
    assert diverges.all() or not diverges.any()
    if diverges.all():
        assert optimizer == "nesterov", "the others are stable at these rates"


@pytest.mark.statistical
def test_simulated_updates_agree() -> None:
    """Four optimisers at four settings: sixteen distances in standard errors, above 3.5 by chance once in 130."""
    assert exactness(seed=1)["standard_errors"].max() < 3.5


def test_a_wrong_learning_rate_would_be_noticed() -> None:
    mean, error = simulation(SMALL, "sgd", 40, 0.3, 4.0, 0.0, np.random.default_rng(0))
    assert abs(float(risk(SMALL, "sgd", 40, 0.33, 4.0)) - mean) > 5 * error


def test_away_from_coinciding_roots_digits_are_kept() -> None:
    assert exactness()["relative_error"].max() < 1e-9


def test_unstable_rates_diverge_and_are_no_number() -> None:
    assert risk(SMALL, "sgd", 10, 2.0, 4.0) == np.inf
    assert risk(SMALL, "momentum", 10, 2 * (1 + 0.5) + 0.01, 4.0, 0.5) == np.inf
    assert np.isfinite(risk(SMALL, "momentum", 10, 2 * (1 + 0.5) - 0.01, 4.0, 0.5))


def test_the_published_spectrum() -> None:
    model = published()
    assert len(model.count) == 84
    assert model.count.sum() == 10_000
    assert model.curvature.max() == 1.0


@given(dimension=st.integers(1, 5000), exponent=st.floats(0.2, 2.5))
def test_bins_keep_count_and_trace(dimension: int, exponent: float) -> None:
    model = power_law(dimension, exponent, bins=40)
    assert model.count.sum() == dimension
    assert model.count @ model.curvature == pytest.approx((np.arange(1, dimension + 1.0) ** -exponent).sum())


def test_noise_scales_are_those_of_their_definitions() -> None:
    left, noise = second_moments(SMALL, "sgd", np.array([[5.0]]), np.array([[0.2]]), np.array([[0.0]]), 0.0)
    found = noise_scales(SMALL, left, noise, np.array([8.0]))
    h, n = SMALL.curvature, SMALL.count
    theta_sq = 2 * (left + noise / 8)[0] / h
    assert found["noise_scale"][0] == pytest.approx((n @ h) / (n @ (h**2 * theta_sq)))
    assert found["hessian_noise_scale"][0] == pytest.approx((n @ h**2) / (n @ (h**3 * theta_sq)))


def test_what_is_no_power_is_refused() -> None:
    with pytest.raises(ValueError, match=r"power is 1\.5: give a number from 0 to 1"):
        risk(SMALL, "sgd", 1, 0.1, 1.0, power=1.5)
