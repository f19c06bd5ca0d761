from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.domains.nqm.schedules import cosine_decay, linear_decay, piecewise_constant, ramp, warmup_stable_decay
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.stepwise import Method, risk_curve, simulate

PROBLEM = Spectrum.power_law(20, noise_exponent=0.7, initial_exponent=0.4, bins=20)
UPDATES = 30
SCHEDULES = {
    "piecewise": (piecewise_constant([0.8, 0.2], [10, 20]), np.full(UPDATES, 4.0)),
    "linear": (linear_decay(0.8, 0.1, 20, UPDATES), np.full(UPDATES, 4.0)),
    "cosine, batches double": (cosine_decay(0.8, UPDATES), ramp(2, 64, UPDATES, geometric=True)),
    "warm-up, stable, decay": (warmup_stable_decay(0.8, 5, 15, 10), ramp(2, 20, UPDATES)),
}
METHODS = {
    "sgd": Method(),
    "heavy ball": Method(momentum=0.8),
    "nesterov": Method(momentum=0.8, nesterov=True),
    "average of nesterov": Method(momentum=0.5, nesterov=True, averaging=0.8),
    "preconditioned": Method(momentum=0.5, power=0.7),
    "state-dependent noise": Method(momentum=0.5, nesterov=True, power=0.3, multiplicative=0.5),
}


@pytest.mark.statistical
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("method", METHODS)
def test_simulated_runs_agree_with_the_recursion(schedule: str, method: str) -> None:
    """24 cases of one test each on 20,000 runs: at 3.5 standard errors all pass for 98.9 % of seeds."""
    rates, batches = SCHEDULES[schedule]
    seed = 100 * list(SCHEDULES).index(schedule) + list(METHODS).index(method)
    simulated = simulate(PROBLEM, rates, batches, METHODS[method], runs=20_000, seed=seed)
    expected = risk_curve(PROBLEM, rates, batches, METHODS[method])
    assert simulated.mean[0] == pytest.approx(expected[0], abs=4 * simulated.standard_error[0])
    assert abs(simulated.mean[-1] - expected[-1]) < 3.5 * simulated.standard_error[-1]


@pytest.mark.statistical
def test_state_dependent_noise_is_that_of_least_squares() -> None:
    """One example a step, y = x'w + e with x ~ N(0, H): 20,000 runs, 3 standard errors fail for 0.3 % of seeds."""
    rng = np.random.default_rng(5)
    h, rate, runs = np.array([1.0, 0.4, 0.1]), 0.3, 20_000
    theta = rng.standard_normal((runs, 3))
    for _ in range(10):
        x = rng.standard_normal((runs, 3)) * np.sqrt(h)
        residual = np.sum(x * theta, axis=1) - rng.standard_normal(runs)
        theta -= rate * residual[:, None] * x
    losses = 0.5 * (theta**2 @ h)
    expected = risk_curve(Spectrum.from_eigenvalues(h), np.full(10, rate), 1, Method(multiplicative=1.0))[-1]
    assert abs(losses.mean() - expected) < 3 * losses.std() / np.sqrt(runs)


def test_diverging_rates_grow_to_infinity_without_warnings() -> None:
    curve = risk_curve(PROBLEM, np.full(3000, 2.5), 4, Method(momentum=0.0))
    assert curve[-1] == np.inf
    assert not np.isnan(curve).any()


def test_bad_schedules_and_methods() -> None:
    with pytest.raises(ValueError, match="learning rates"):
        risk_curve(PROBLEM, [0.1, -0.1], 4)
    with pytest.raises(ValueError, match="batch sizes"):
        risk_curve(PROBLEM, [0.1], 0)
    with pytest.raises(ValueError, match="batch sizes are 3 for 2 learning rates"):
        risk_curve(PROBLEM, [0.1, 0.1], [4, 4, 4])
    with pytest.raises(ValueError, match="power is 3"):
        simulate(Spectrum.from_eigenvalues([1.0]), [0.1], 4, Method(power=3))
    with pytest.raises(ValueError, match="coefficients"):
        Method(momentum=1.0)
    with pytest.raises(ValueError, match="multiplicative"):
        Method(multiplicative=-1.0)
    with pytest.raises(ValueError, match="whole"):
        simulate(Spectrum.from_eigenvalues([1.0], counts=[1.5]), [0.1], 4)
