"""Simulations with a known noise scale. Seeds are fixed; every test states how often chance alone would fail it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rl_scaling.noise import NoiseScaleEstimate, NoiseScaleMeter, example_trace, moments_from_groups
from tests.noise.reference import FloatArray, GaussianGradients, feed, sq_norms

pytestmark = pytest.mark.statistical


def replicate(
    replications: int, measurements: int, *, batch_over_noise: float, groups: int, window: float | None = None
) -> tuple[float, list[NoiseScaleEstimate]]:
    """The true noise scale and one whole-run estimate for each independent replication."""
    group_size = 4
    truth = groups * group_size / batch_over_noise
    source, rng = GaussianGradients(truth), np.random.default_rng(groups)
    estimates = []
    for _ in range(replications):
        meter = NoiseScaleMeter(group_size, window=window)
        feed(meter, source.group_means(rng, measurements, groups, group_size))
        estimates.append(meter.estimate())
    return truth, estimates


def coverage(truth: float, estimates: list[NoiseScaleEstimate]) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


@pytest.mark.parametrize("batch_over_noise", [0.1, 1.0])
@pytest.mark.parametrize("groups", [4, 16])
def test_whole_run_estimates_have_no_bias_and_intervals_cover(batch_over_noise: float, groups: int) -> None:
    """Coverage of 93 to 97 % over 800 replications (standard error 0.8 %): chance fails a true 95 % once in 100.

    The interval is made on 1/B_simple, in which it is symmetric, so the median is what has no bias; the mean of
    B_simple, a reciprocal, exceeds it by the squared relative error, here 4 % at most.
    """
    truth, estimates = replicate(800, 100, batch_over_noise=batch_over_noise, groups=groups)
    assert 0.93 <= coverage(truth, estimates) <= 0.97
    assert all(e.resolved for e in estimates) or batch_over_noise < 1
    ratios = np.array([e.trace_cov / e.grad_sq_norm for e in estimates]) / truth
    assert np.median(ratios) == pytest.approx(1, abs=0.02)
    means = np.mean([[e.grad_sq_norm, e.trace_cov] for e in estimates], axis=0)
    assert means == pytest.approx([1, truth], rel=0.02)


@pytest.mark.parametrize("measurements", [3, 8, 30])
def test_intervals_of_few_measurements_cover(measurements: int) -> None:
    """Tolerance of 2 % over 1,000 replications: chance fails a true 95 % once in 260."""
    truth, estimates = replicate(1_000, measurements, batch_over_noise=0.3, groups=4)
    assert coverage(truth, estimates) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("measurements", [30, 120])
def test_windowed_intervals_cover(measurements: int) -> None:
    """Few effective degrees of freedom make the interval a little long: 96 % is expected; 3 % is three errors."""
    truth, estimates = replicate(600, measurements, batch_over_noise=0.3, groups=4, window=15)
    assert coverage(truth, estimates) == pytest.approx(0.955, abs=0.03)


def test_what_cannot_be_resolved_says_so_and_its_bound_holds() -> None:
    """At B / B_noise = 0.001 a few per cent pass as resolved, and as many bounds fail: at most 5 % of each."""
    truth, estimates = replicate(400, 30, batch_over_noise=0.001, groups=8)
    unresolved = [e for e in estimates if not e.resolved]
    assert len(unresolved) >= 0.95 * len(estimates)
    assert all(math.isnan(e.b_simple) and e.high == math.inf and 0 < e.low < math.inf for e in unresolved)
    assert np.mean([truth > e.low for e in unresolved]) >= 0.95
    # The bound is worth having: it excludes noise scales near the batch size.
    assert np.median([e.low for e in unresolved]) > 2 * 8 * 4


def test_neighbours_that_depend_on_each_other_do_not_shorten_the_interval() -> None:
    """Measurements in runs of three equal ones, 120 in 20 blocks: coverage of 93 to 97 %, once in 50 by chance."""
    source, rng = GaussianGradients(16 / 0.3), np.random.default_rng(2)
    estimates = []
    for _ in range(600):
        meter = NoiseScaleMeter(4)
        feed(meter, np.repeat(source.group_means(rng, 40, 4, 4), 3, axis=0))
        estimates.append(meter.estimate())
    assert 0.93 <= coverage(16 / 0.3, estimates) <= 0.97


def correlated_frames(rng: np.random.Generator) -> FloatArray:
    """(64 environments, 16 steps, 100): |G|^2 = 1, frames of an environment share a random effect, correlation 0.3."""
    deviation = math.sqrt(400 / 100)
    shared = rng.standard_normal((64, 1, 100)) * math.sqrt(0.3)
    own = rng.standard_normal((64, 16, 100)) * math.sqrt(0.7)
    return 0.1 + deviation * (shared + own)


def test_groups_must_be_whole_environments() -> None:
    """400 per frame times a design effect of 1 + 15 * 0.3 = 5.5 is 2,200; other groupings take dependence for signal.

    150 measurements leave a relative error of 4 % by environment, below 1 % for the others: 16 %, 5 % and 5 % are
    four errors or more.
    """
    rng = np.random.default_rng(3)
    by_environment, shuffled, by_step = NoiseScaleMeter(16), NoiseScaleMeter(16), NoiseScaleMeter(64)
    for step in range(150):
        frames = correlated_frames(rng)
        flat = frames.reshape(-1, 100)
        batch = float(sq_norms(flat.mean(axis=0)))
        environments = sq_norms(frames.mean(axis=1))
        grad_sq_norm, _ = moments_from_groups(environments, batch, 16)
        few = rng.choice(flat, 64, replace=False)
        trace = example_trace(sq_norms(few), grad_sq_norm) if step % 5 == 0 else None
        by_environment.update(environments, batch, example_trace=trace)
        shuffled.update(sq_norms(rng.permutation(flat).reshape(64, 16, 100).mean(axis=1)), batch)
        by_step.update(sq_norms(frames.mean(axis=0)), batch)
    right = by_environment.estimate()
    assert right.b_simple == pytest.approx(2_200, rel=0.16)
    assert right.low < 2_200 < right.high
    assert right.design_effect == pytest.approx(5.5, rel=0.05)
    assert shuffled.estimate().b_simple == pytest.approx(145, rel=0.05)
    assert by_step.estimate().b_simple == pytest.approx(98, rel=0.05)
