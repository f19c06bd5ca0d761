"""What updates say of the noise scale, and which of them are measured."""

from __future__ import annotations

import math

import pytest

from rl_scaling.domains.supervised.config import GROUPS, AdaptiveExamplesConfig, OptimizerConfig, SupervisedConfig
from rl_scaling.domains.supervised.noise import BatchSize, RunNoise, run_noise
from rl_scaling.noise import NoiseScaleMeter
from rl_scaling.noise.meter import Measurement

RULE = AdaptiveExamplesConfig(exchange_rate=50, measure_every_updates=3, groups=4, window_measurements=20)


def measurement(square: float, trace: float) -> Measurement:
    return Measurement(square, trace, math.nan, 16, 0.1)


def config_of(**changes: object) -> SupervisedConfig:
    return SupervisedConfig(optimizer=OptimizerConfig(learning_rate=0.1), **changes)  # pyright: ignore[reportArgumentType]


def test_a_batch_whose_gradient_is_not_finite_is_left_out() -> None:
    noise = RunNoise(every=2)
    assert noise.estimate() is None
    noise.add(measurement(1.0, 4.0))
    noise.add(measurement(math.inf, math.nan))
    noise.add(measurement(2.0, 6.0))
    columns = noise.columns(running=True)
    assert (columns["noise_measurements"], columns["grad_sq_norm"], columns["trace_cov"]) == (2, 1.5, 5.0)
    assert columns["noise_scale_low"] <= columns["noise_scale_high"]
    assert noise.columns(running=True) == {}


def test_the_running_estimate_is_that_of_a_meter_and_continues_from_a_state() -> None:
    noise, meter = RunNoise(every=1, window=5), NoiseScaleMeter(1, window=5)
    for number in range(60):
        noise.add(measurement(1 + number % 3, 5 + number % 7))
        meter.add(measurement(1 + number % 3, 5 + number % 7))
        if number == 41:
            noise.columns(running=False)
            state, noise = noise.state(), RunNoise(every=1, window=5)
            noise.load(state)
    columns, expected = noise.columns(running=True), meter.estimate()
    assert columns["noise_measurements"] == 18
    found = [columns[name] for name in ("noise_scale", "noise_scale_low", "noise_scale_high")]
    assert found == [expected.b_simple, expected.low, expected.high]


def test_who_is_measured_and_how_often() -> None:
    plain, adaptive = run_noise(config_of()), run_noise(config_of(adaptive=RULE))
    assert plain is not None
    assert adaptive is not None
    assert (plain.every, plain.groups) == (4, GROUPS)
    assert (adaptive.every, adaptive.groups) == (3, 4)
    assert [update for update in range(9) if plain.due(update)] == [0, 4, 8]
    assert run_noise(config_of(noise_every_updates=0)) is None
    assert run_noise(config_of(batch_size=1)) is None


def test_a_batch_size_that_is_resumed_has_the_rate_that_belongs_to_it() -> None:
    batch = BatchSize(config_of(batch_size=8, adaptive=RULE))
    assert batch.rate_factor == 1
    batch.resume(32)
    assert batch.rate_factor == pytest.approx((1 + 64 / 8) / (1 + 64 / 32))
    fixed = BatchSize(config_of(batch_size=8))
    fixed.resume(8)
    assert (fixed.examples, fixed.rate_factor) == (8, 1)
