from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.domains.nqm.dynamics import risk
from rl_scaling.domains.nqm.noise_scales import noise_scales
from rl_scaling.domains.nqm.spectrum import Spectrum

PROBLEM = Spectrum.power_law(50, noise_exponent=0.8, bins=50)


@pytest.mark.statistical
@pytest.mark.parametrize(("momentum", "rate"), [(0.0, 0.5), (0.8, 0.3)])
def test_the_scales_equal_those_of_simulated_gradients(momentum: float, rate: float) -> None:
    """Each of 4 means over 20,000 runs within 3.5 standard errors: 0.2 % of seeds fail."""
    rng = np.random.default_rng(7)
    h, c = PROBLEM.eigenvalues, PROBLEM.noise
    theta = rng.standard_normal((20_000, 50))
    buffer = np.zeros_like(theta)
    for _ in range(20):
        buffer = momentum * buffer + h * theta + rng.standard_normal(theta.shape) * np.sqrt(c / 4)
        theta -= rate * buffer
    settings = {"learning_rate": rate, "batch_size": 4, "optimizer": "momentum", "coefficient": momentum}
    scales = noise_scales(PROBLEM, [20], **settings)
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
        noise_scales(PROBLEM, [1], learning_rate=2.1, batch_size=4)


def test_an_average_leaves_the_gradients_where_sgd_takes_them() -> None:
    settings = {"learning_rate": 0.5, "batch_size": 4}
    averaged = noise_scales(PROBLEM, [20], **settings, optimizer="ema", coefficient=0.9)
    np.testing.assert_array_equal(averaged.b_simple, noise_scales(PROBLEM, [20], **settings).b_simple)
