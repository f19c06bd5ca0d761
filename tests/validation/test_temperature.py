from __future__ import annotations

import math

import pytest

from rl_scaling.config import ConfigError
from rl_scaling.noise import NoiseScaleEstimate
from rl_scaling.validation.settings import TemperatureSettings
from rl_scaling.validation.temperature import ratio_of_estimates, temperature_runs


def estimate(value: float, low: float, high: float) -> NoiseScaleEstimate:
    known = math.isfinite(value)
    return NoiseScaleEstimate(
        b_simple=value,
        low=low,
        high=high,
        grad_sq_norm=1.0,
        trace_cov=value,
        steps=10,
        resolved=known,
        design_effect=math.nan,
        skipped=0,
        confidence=0.95,
    )


def silent(_: str) -> None:
    pass


def test_ratio_of_two_estimates() -> None:
    found = ratio_of_estimates(estimate(1_600, 800, 3_200), estimate(100, 100, 100))
    assert (found.value, found.low, found.high) == pytest.approx((16, 8, 32))
    found = ratio_of_estimates(estimate(1_600, 800, 3_200), estimate(100, 50, 200))
    assert found.low == pytest.approx(16 / 2 ** math.sqrt(2))
    bound = ratio_of_estimates(estimate(math.nan, 500, math.inf), estimate(100, 90, 125))
    assert (bound.low, bound.high, bound.resolved, str(bound)) == (4, math.inf, False, "> 4")
    nothing = ratio_of_estimates(estimate(100, 90, 125), estimate(math.nan, 500, math.inf))
    assert (nothing.low, nothing.high) == (0, math.inf)


def test_a_run_repeats_and_all_start_alike() -> None:
    settings = TemperatureSettings(pretrain_updates=20, phase_updates=40)
    rate, batch = temperature_runs(settings, ("learning-rate", "batch-size"), silent)
    (again,) = temperature_runs(settings, ("batch-size",), silent)
    assert rate.phases[0] == batch.phases[0]
    assert batch.phases == again.phases
    assert batch.curve["phase"].unique().tolist() == ["before", "during", "after"]
    assert batch.curve["updates"].tolist() == list(range(1, 3 * 40 + 1))
    assert batch.phases[1].estimate.steps == 20, "the first half of a phase is left to settle"


def test_divergence_is_one_line() -> None:
    with pytest.raises(ConfigError, match="diverged at a learning rate"):
        list(temperature_runs(TemperatureSettings(learning_rate=1e30, pretrain_updates=5), ("both",), silent))


@pytest.mark.slow
@pytest.mark.statistical
def test_the_noise_scale_follows_the_temperature_and_returns() -> None:
    """Figure 15 with a factor of 4: C.2 is a rule of thumb, so between 2.5 and 6.5; intervals of a tenth or less.

    What the groups find must agree with the gradient of all the data: 15 % is about three errors.
    """
    settings = TemperatureSettings(factor=4, pretrain_updates=4_000, phase_updates=6_000)
    (found,) = temperature_runs(settings, ("batch-size",), silent)
    assert found.ratio.low > 2.5
    assert found.ratio.high < 6.5
    assert found.return_ratio.value == pytest.approx(1, rel=0.2)
    for phase in found.phases:
        assert phase.estimate.b_simple == pytest.approx(phase.b_simple_exact, rel=0.15)
