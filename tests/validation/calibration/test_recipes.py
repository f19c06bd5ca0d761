from __future__ import annotations

import math

import numpy as np
import pytest

from rl_scaling.noise import NoiseScaleMeter
from rl_scaling.validation.calibration.recipes import (
    clamped,
    mean_of_ratios,
    plain_ratio,
    shuffled_frames,
    time_step_groups,
)
from tests.noise.reference import sq_norms


def test_recipes_by_hand() -> None:
    squares, traces = np.array([[1.0, -2.0, 4.0]]), np.array([[10.0, 20.0, 40.0]])
    weights = np.array([1.0, 1.0, 2.0])
    assert plain_ratio(squares, traces, weights) == pytest.approx([110 / 7])
    assert clamped(squares, traces, weights) == pytest.approx([110 / 9])
    assert mean_of_ratios(squares, traces, weights) == pytest.approx([(10 - 10 + 20) / 4])


@pytest.mark.statistical
@pytest.mark.parametrize("correlation", [0.1, 0.6])
def test_wrong_groups_of_whole_vectors_answer_what_the_formulas_say(correlation: float) -> None:
    """150 measurements of 12 environments with 6 frames; 8 % are four standard errors or more."""
    rng, environments, frames, dimensions, trace = np.random.default_rng(7), 12, 6, 60, 40.0
    noise_scale = trace * (1 + (frames - 1) * correlation)
    shuffled, steps = NoiseScaleMeter(frames), NoiseScaleMeter(environments)
    for _ in range(150):
        shared = math.sqrt(correlation) * rng.standard_normal((environments, 1, dimensions))
        own = math.sqrt(1 - correlation) * rng.standard_normal((environments, frames, dimensions))
        gradients = 1 / math.sqrt(dimensions) + math.sqrt(trace / dimensions) * (shared + own)
        flat = gradients.reshape(-1, dimensions)
        batch = float(sq_norms(flat.mean(axis=0)))
        shuffled.update(sq_norms(rng.permutation(flat).reshape(environments, frames, -1).mean(axis=1)), batch)
        steps.update(sq_norms(gradients.mean(axis=0)), batch)
    for meter, recipe in ((shuffled, shuffled_frames), (steps, time_step_groups)):
        estimate = meter.estimate()
        expected = noise_scale * recipe(noise_scale, environments, frames, correlation)
        assert estimate.trace_cov / estimate.grad_sq_norm == pytest.approx(expected, rel=0.08)


def test_independent_frames_may_be_grouped_in_any_way() -> None:
    assert shuffled_frames(100, 8, 16, 0.0) == 1
    assert time_step_groups(100, 8, 16, 0.0) == 1
