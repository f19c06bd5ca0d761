from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.domains.nqm.bounds import bayes_bound, estimation_bound, examples_for_bayes_bound, small_batch_limit
from rl_scaling.domains.nqm.spectrum import Spectrum

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
