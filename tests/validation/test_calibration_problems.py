from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rl_scaling.noise import NoiseScaleMeter, moments_from_groups
from rl_scaling.validation.calibration_problems import (
    DRIFT,
    PROBLEMS,
    Carried,
    NoiseTerms,
    Spectrum,
    equal_spectrum,
    gaussian_noise,
    inverse_spectrum,
    student_noise,
)
from tests.validation.reference import direction, noise_vectors, terms_of

NOTHING = Carried(0.0, 0.0)


def functions(terms: NoiseTerms) -> list[np.ndarray]:
    """(repeats,) numbers that depend on all terms and on their order in time."""
    return [
        terms.along[:, -1],
        terms.pair[:, -1],
        terms.trace[:, -1],
        terms.along[:, 0] * terms.along[:, -1],
        terms.pair[:, 0] * terms.pair[:, -1],
        terms.pair[:, -1] + terms.trace[:, 0] * terms.trace[:, -1],
        terms.along[:, -1] ** 2 + terms.pair[:, -1],
    ]


@pytest.mark.statistical
@pytest.mark.parametrize("spectrum", [equal_spectrum(5), inverse_spectrum(3), Spectrum((0.3, 0.1), (2, 4))])
@pytest.mark.parametrize("carried", [NOTHING, Carried(0.7, 0.6)])
@pytest.mark.parametrize("groups", [2, 5])
def test_terms_are_distributed_as_those_of_whole_vectors(spectrum: Spectrum, carried: Carried, groups: int) -> None:
    """84 Kolmogorov-Smirnov tests of 4,000 repeats in all, each at 1e-5: chance fails one in 1,200."""
    rng = np.random.default_rng([groups, len(spectrum.eigenvalues)])
    found = gaussian_noise(rng, (4_000, 3), groups, spectrum, carried)
    expected = terms_of(noise_vectors(rng, (4_000, 3), groups, spectrum, carried), direction(spectrum))
    for one, other in zip(functions(found), functions(expected), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-5


@pytest.mark.statistical
def test_student_noise_has_the_moments_it_should() -> None:
    """Means of 600,000 measurements or more; tolerances of four standard errors, which four moments exist for."""
    terms = student_noise(np.random.default_rng(0), (300, 2_000), groups=4, dimensions=3, freedom=9)
    assert np.mean(terms.along) == pytest.approx(0, abs=4 * np.std(terms.along) / 600_000**0.5)
    assert np.mean(terms.pair) == pytest.approx(0, abs=4 * np.std(terms.pair) / 600_000**0.5)
    assert np.mean(terms.trace) == pytest.approx(1, abs=4 * np.std(terms.trace) / 600_000**0.5)
    assert np.var(terms.along) == pytest.approx(1 / 3 / 4, rel=0.02)


@pytest.mark.parametrize("groups", [2, 7])
def test_moments_are_those_of_the_core(groups: int) -> None:
    """From the same vectors: through the terms, through `moments_from_groups` and through the meter."""
    spectrum, ratio = inverse_spectrum(3), 0.3
    vectors = noise_vectors(np.random.default_rng(1), (1, 20), groups, spectrum, NOTHING)
    problem = PROBLEMS["drifting"]
    squares, traces = problem.moments(terms_of(vectors, direction(spectrum)), groups, ratio)
    course = DRIFT ** np.linspace(0, 1, 20)
    signal, trace = 1 / course / np.mean(1 / course), groups / ratio * course / course.mean()
    gradients = np.sqrt(signal)[:, None, None] * direction(spectrum) + np.sqrt(trace)[:, None, None] * vectors[0]
    meter = NoiseScaleMeter(group_size=1)
    for t in range(20):
        norms, batch = np.sum(gradients[t] ** 2, axis=1), float(np.sum(gradients[t].mean(axis=0) ** 2))
        assert (squares[0, t], traces[0, t]) == pytest.approx(moments_from_groups(norms, batch, 1))
        meter.update(norms, batch)
    estimate = meter.estimate()
    assert (estimate.grad_sq_norm, estimate.trace_cov) == pytest.approx((squares.mean(), traces.mean()))


@pytest.mark.statistical
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_the_noise_scale_is_the_one_claimed(name: str) -> None:
    """Weighted means over 600 series of 60: within four and a half standard errors, once in 10,000 by chance."""
    problem, groups, ratio = PROBLEMS[name], 4, 0.5
    terms = problem.draw(np.random.default_rng(5), (600, 60), groups, 0.5 if problem.correlated else 0.0)
    weights = problem.weights(60)
    for values, truth in zip(problem.moments(terms, groups, ratio), (1, groups / ratio), strict=True):
        means = values @ weights / weights.sum()
        assert means.mean() == pytest.approx(truth, abs=4.5 * means.std() / 600**0.5)
