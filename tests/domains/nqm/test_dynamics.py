from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.domains.nqm.config import OPTIMIZERS
from rl_scaling.domains.nqm.dynamics import (
    check_settings,
    convergence_rate,
    diverges,
    noise_scales,
    risk,
    risk_behind,
    steady_state_risk,
)
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.stepwise import Method, risk_curve
from tests.domains.nqm.reference import decimal_moment

PROBLEM = Spectrum.power_law(300, 1.1, noise_exponent=0.9, initial_exponent=0.2, bins=40)
SMALL = Spectrum.power_law(50, noise_exponent=0.8, bins=50)
METHODS = {
    "sgd": Method(),
    "momentum": Method(momentum=0.9),
    "nesterov": Method(momentum=0.9, nesterov=True),
    "ema": Method(averaging=0.9),
    "momentum-ema": Method(momentum=0.9),
    "nesterov-ema": Method(momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_closed_form_equals_the_recursion_at_every_step(name: str, power: float) -> None:
    method = METHODS[name]
    coefficient = max(method.momentum, method.averaging)
    method = Method(method.momentum, method.nesterov, method.averaging, power)
    curve = risk_curve(PROBLEM, np.full(150, 0.7), 8, method)
    settings = {"optimizer": name, "coefficient": coefficient, "power": power}
    values = risk(PROBLEM, np.arange(151), learning_rate=0.7, batch_size=8, **settings)
    np.testing.assert_allclose(values, curve, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_average_of_momentum_equals_the_recursion(nesterov: bool) -> None:
    curve = risk_curve(PROBLEM, np.full(200, 0.3), 8, Method(0.9, nesterov, 0.95, 0.5))
    name = "nesterov-ema" if nesterov else "momentum-ema"
    settings = {"optimizer": name, "coefficient": 0.9, "averaging": 0.95, "power": 0.5}
    values = risk(PROBLEM, np.arange(201), learning_rate=0.3, batch_size=8, **settings)
    np.testing.assert_allclose(values, curve, rtol=1e-12)
    checked = check_settings(0.3, 8, 0.9, np.arange(201), 0.95)
    fast = risk_behind(find_optimizer(name), PROBLEM.preconditioned(0.5), checked, for_search=True)
    np.testing.assert_allclose(fast, curve, rtol=1e-3)


def test_without_momentum_the_average_of_momentum_is_the_average_of_sgd() -> None:
    steps = np.array([1, 10**3, 10**6, 10**9])
    settings = {"learning_rate": 1e-3, "batch_size": 8}
    values = risk(PROBLEM, steps, **settings, optimizer="momentum-ema", averaging=0.999)
    expected = risk(PROBLEM, steps, **settings, optimizer="ema", coefficient=0.999)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["momentum", "nesterov", "ema", "momentum-ema", "nesterov-ema"])
def test_a_coefficient_of_zero_is_sgd(name: str) -> None:
    settings = {"learning_rate": [0.01, 1.0, 1.9], "batch_size": 8}
    steps = np.array([[0], [1], [100], [10**7]])
    np.testing.assert_allclose(
        risk(PROBLEM, steps, optimizer=name, **settings), risk(PROBLEM, steps, **settings), rtol=1e-13
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_risk_ends_at_the_steady_state_at_the_convergence_rate(name: str) -> None:
    settings = {"learning_rate": 0.5, "optimizer": name, "coefficient": 0.0 if name == "sgd" else 0.3}
    limit = steady_state_risk(PROBLEM, batch_size=8, **settings)
    np.testing.assert_allclose(risk(PROBLEM, 10**8, batch_size=8, **settings), limit, rtol=1e-13)
    rate = float(convergence_rate(PROBLEM, **settings))
    late = np.array([10, 12] if name.endswith("-ema") else [40, 42]) / rate  # doubling knows no weights below rounding
    excess = risk(
        Spectrum.from_eigenvalues(PROBLEM.eigenvalues, noise=0 * PROBLEM.noise), late.round(), batch_size=8, **settings
    )
    assert np.log(excess[0] / excess[1]) == pytest.approx(2 * rate * np.diff(late.round())[0], rel=0.1)


def test_instability_is_infinite_and_not_a_number() -> None:
    problem = Spectrum.from_eigenvalues([1.0, 0.1])
    cases = [("sgd", 2.0, 0.0), ("momentum", 2 * 1.5, 0.5), ("nesterov", 1.5, 0.5), ("ema", 2.0, 0.5)]
    for name, limit, coefficient in cases:
        settings = {"optimizer": name, "coefficient": coefficient, "learning_rate": [limit * (1 - 1e-9), limit]}
        assert diverges(problem, **settings).tolist() == [False, True]
        for steps in (1, 10, 10**6):
            assert np.isfinite(risk(problem, steps, batch_size=4, **settings)).tolist() == [True, False]
        assert np.isfinite(steady_state_risk(problem, batch_size=4, **settings)).tolist() == [True, False]
        assert np.all(risk(problem, 0, batch_size=4, **settings) == problem.initial_risk)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning rates"),
        ({"learning_rate": np.nan}, "learning rates"),
        ({"batch_size": 0}, "batch sizes"),
        ({"coefficient": 1.0}, "coefficients"),
        ({"coefficient": -0.1}, "coefficients"),
        ({"power": -0.1}, "power"),
        ({"optimizer": "adam"}, "optimizer is 'adam'"),
        ({"steps": 0.5}, "whole numbers"),
        ({"steps": -1}, "whole numbers"),
    ],
)
def test_bad_settings(change: dict[str, float], message: str) -> None:
    settings = {"steps": 10, "learning_rate": 0.1, "batch_size": 4, "optimizer": "momentum", "coefficient": 0.5}
    with pytest.raises(ValueError, match=message):
        risk(PROBLEM, **{**settings, **change})


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("noise_exponent", [0.0, 0.4, 3.0, 8.0])
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "ema"])
def test_noise_of_any_exponent_keeps_all_digits(name: str, noise_exponent: float, power: float) -> None:
    """Against the updates in numbers of 50 digits, dimension by dimension."""
    problem = Spectrum.power_law(6, 1.3, noise_exponent=noise_exponent, initial_exponent=0.5)
    rate, coefficient, steps = 0.7, 0.0 if name == "sgd" else 0.95, 150
    expected = 0.0
    for h, c, start in zip(problem.eigenvalues, problem.noise, problem.initial, strict=True):
        variance = rate**2 * c / (8 * start) / h ** (2 * power)
        moment = decimal_moment(name, rate * h ** (1 - power), coefficient, steps, variance)
        expected += h / 2 * start * moment
    settings = {"learning_rate": rate, "batch_size": 8, "optimizer": name, "coefficient": coefficient, "power": power}
    assert float(risk(problem, steps, **settings)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.statistical
@pytest.mark.parametrize(("momentum", "rate"), [(0.0, 0.5), (0.8, 0.3)])
def test_the_scales_equal_those_of_simulated_gradients(momentum: float, rate: float) -> None:
    """Each of 4 means over 20,000 runs within 3.5 standard errors: 0.2 % of seeds fail."""
    rng = np.random.default_rng(7)
    h, c = SMALL.eigenvalues, SMALL.noise
    theta = rng.standard_normal((20_000, 50))
    buffer = np.zeros_like(theta)
    for _ in range(20):
        buffer = momentum * buffer + h * theta + rng.standard_normal(theta.shape) * np.sqrt(c / 4)
        theta -= rate * buffer
    settings = {"learning_rate": rate, "batch_size": 4, "optimizer": "momentum", "coefficient": momentum}
    scales = noise_scales(SMALL, [20], **settings)
    for simulated, expected in (
        (np.sum((h * theta) ** 2, axis=1), scales.grad_sq_norm[0]),
        (np.sum(h * (h * theta) ** 2, axis=1), scales.grad_curvature[0]),
    ):
        assert abs(simulated.mean() - expected) < 3.5 * simulated.std() / np.sqrt(len(simulated))
    assert scales.trace_cov == pytest.approx(c.sum())
    assert scales.hessian_trace_cov == pytest.approx(np.sum(h * c))


def test_one_dimension_by_hand() -> None:
    """With one eigenvalue h and C = H: |G|^2 = 2 h L, so both scales are h / (2 h L) = 1 / (2 L)."""
    problem = Spectrum.from_eigenvalues([0.5])
    scales = noise_scales(problem, [0, 5, 50], learning_rate=0.1, batch_size=8)
    losses = risk(problem, [0, 5, 50], learning_rate=0.1, batch_size=8)
    np.testing.assert_allclose(scales.b_simple, 1 / (2 * losses), rtol=1e-13)
    np.testing.assert_allclose(scales.b_noise, 1 / (2 * losses), rtol=1e-13)


def test_a_diverging_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="diverges"):
        noise_scales(SMALL, [1], learning_rate=2.1, batch_size=4)


def test_an_average_leaves_the_gradients_where_sgd_takes_them() -> None:
    settings = {"learning_rate": 0.5, "batch_size": 4}
    averaged = noise_scales(SMALL, [20], **settings, optimizer="ema", coefficient=0.9)
    np.testing.assert_array_equal(averaged.b_simple, noise_scales(SMALL, [20], **settings).b_simple)
