"""Predictions from a noise scale along training, against closed forms and simulated runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rl_scaling.analysis.noise_path import NoisePath, predicted, predicted_gamma
from rl_scaling.estimates import Estimate
from rl_scaling.statistics.jackknife import ratio_of_means

K = 400
MIDDLES = (np.arange(K) + 0.5) / K


def exact_course(noise_scale: np.ndarray, batches: list[float]) -> NoisePath:
    """Runs of several batch sizes through a noise scale that is known exactly, one noise-free step per stretch."""
    batch = np.array(batches)[:, None] * np.ones(len(noise_scale))
    nothing = np.zeros(len(noise_scale))
    return NoisePath(1 + noise_scale / batch, batch, 1 / noise_scale, nothing, nothing + 9)


@pytest.mark.parametrize(
    ("noise_scale", "mean", "gamma"),
    [
        (np.sqrt, 2 / 3, 24 / 25),  # the paper's own case, below D.5
        (np.ones_like, 1.0, 1.0),
        (np.square, 1 / 3, 3 / 4),  # (1/2)^2 / (1/3)
        (lambda s: s**4, 1 / 5, 5 / 9),
        (lambda s: np.exp(4 * s), (math.exp(4) - 1) / 4, (math.exp(2) - 1) ** 2 / (math.exp(4) - 1)),
    ],
)
@pytest.mark.parametrize("batches", [[0.01], [3.0], [0.1, 1.0, 100.0]])
def test_closed_forms(
    noise_scale: Callable[[np.ndarray], np.ndarray], mean: float, gamma: float, batches: list[float]
) -> None:
    path = exact_course(noise_scale(MIDDLES), batches)
    found = path.integrals()
    assert found.steps_min == pytest.approx(K)
    assert found.examples_min == pytest.approx(K * mean, rel=1e-4)
    assert found.critical_batch == pytest.approx(mean, rel=1e-4)
    assert predicted_gamma(path).value == pytest.approx(gamma, rel=1e-3)
    batch = predicted(path, lambda i: i.critical_batch)
    np.testing.assert_allclose((batch.value, batch.low, batch.high), mean, rtol=1e-4)


@given(noise_scale=arrays(float, 20, elements=st.floats(1e-2, 1e6)), batch=st.floats(1e-2, 1e6), r=st.floats(1e-3, 1e6))
def test_an_adaptive_batch_gains_gamma_whatever_an_update_costs(
    noise_scale: np.ndarray, batch: float, r: float
) -> None:
    """D.4 from D.1: the product is gamma for every r, and a fixed batch has 1; gamma never exceeds 1."""
    found = exact_course(noise_scale, [batch]).integrals()
    gamma = float(found.gamma)
    assert 0 < gamma <= 1 + 1e-9
    for sizes, product in ((np.sqrt(r * noise_scale), gamma), (np.full(20, batch), 1.0)):
        steps, examples = (1 + noise_scale / sizes).sum(), (noise_scale + sizes).sum()
        excess = (steps - found.steps_min) * (examples - found.examples_min)
        # Relative to S E: of a product near 0 the differences have few digits left.
        expected = product * found.steps_min * found.examples_min
        assert excess == pytest.approx(expected, rel=1e-6, abs=1e-9 * steps * examples)


def test_what_is_not_known_is_not_guessed() -> None:
    path = NoisePath.of(
        np.ones((1, 2)), np.ones((1, 2)), [ratio_of_means([1.0], [2.0]), ratio_of_means([1, 2], [2, 1])]
    )
    assert not path.known
    assert math.isnan(predicted(path, lambda i: i.steps_min).value)
    assert math.isnan(predicted_gamma(path).value)
    one = NoisePath.of(np.ones((1, 1)), np.ones((1, 1)), [ratio_of_means([1.0, 1.2, 0.9], [2.0, 2.1, 2.0])])
    assert one.known
    assert math.isnan(predicted_gamma(one).value)
    assert predicted(one, lambda i: i.steps_min).low > 0


def test_no_gradient_seen_is_an_infinite_critical_batch() -> None:
    path = NoisePath(np.full((1, 3), 10.0), np.full((1, 3), 80.0), -np.ones(3), np.full(3, 1e-9), np.full(3, 9.0))
    assert path.integrals() == (0, 2400, 0)
    assert predicted(path, lambda i: i.critical_batch) == Estimate(math.inf, math.inf, math.inf)
    assert math.isnan(predicted_gamma(path).value)


@pytest.mark.statistical
def test_intervals_cover_the_truth() -> None:
    """200 runs of batch 80 through N = 400 s, 8 stretches of 12 rows with noise: 95 % intervals cover 90 % at least.

    A coverage of 95 % fails this about once in 500 times.
    """
    rng = np.random.default_rng(0)
    truth = 1 / (400 * (np.arange(8) + 0.5) / 8)
    noise_scale = 1 / truth
    exact = exact_course(noise_scale, [80.0])
    expected = exact.integrals()
    hits = np.zeros(3)
    errors = []
    for _ in range(200):
        rows = truth[:, None] + 0.3 / 80 * rng.standard_normal((8, 12))
        ratios = [ratio_of_means(row, np.ones(12)) for row in rows]
        path = NoisePath.of(exact.updates, exact.batch, ratios)
        gamma = predicted_gamma(path)
        answers = (predicted(path, lambda i: i.steps_min), predicted(path, lambda i: i.critical_batch), gamma)
        for number, (answer, true) in enumerate(
            zip(answers, (expected.steps_min, expected.critical_batch, expected.gamma), strict=True)
        ):
            hits[number] += answer.low <= true <= answer.high
        errors.append(gamma.value - float(expected.gamma))
    assert (hits >= 0.90 * 200).all(), hits
    assert abs(np.mean(errors)) < 0.03
