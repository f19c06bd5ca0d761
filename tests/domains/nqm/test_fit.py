"""The model fitted to steps: exponents that are known come back, as often as the interval says."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rl_scaling.domains.nqm.config import Setting
from rl_scaling.domains.nqm.fit import ModelFit, fastest, fit_model, in_one_line, measured_steps
from rl_scaling.domains.nqm.forecast import Forecast
from rl_scaling.domains.nqm.spectrum import Parameters
from rl_scaling.domains.nqm.tuning import as_table, steps_to_target

SIZES = np.geomspace(4.0, 65536.0, 8)


def exact_steps(exponent: float, noise_exponent: float, scale: float, sizes: np.ndarray = SIZES) -> np.ndarray:
    spectrum = Parameters(exponent, noise_exponent, scale).spectrum(10_000)
    return as_table(steps_to_target(sizes, spectrum=spectrum))["steps"].to_numpy()


@pytest.fixture(scope="module")
def fitted() -> ModelFit:
    return fit_model(measured_steps(SIZES, exact_steps(0.8, 1.2, 5.0)))


def test_exact_steps_give_back_what_made_them(fitted: ModelFit) -> None:
    """As far as whole steps of a compressed spectrum tell."""
    assert fitted.scatter < 1e-3
    for interval, truth in zip(
        (fitted.spectrum_exponent, fitted.noise_exponent, fitted.noise_scale), (0.8, 1.2, 5.0), strict=True
    ):
        assert interval.low <= truth <= interval.high
    assert fitted.spectrum_exponent.value == pytest.approx(0.8, abs=1e-3)


@pytest.mark.slow
@pytest.mark.statistical
def test_a_second_spectrum_that_explains_the_steps_is_named_until_averages_decide() -> None:
    """Errors of 5 %, fixed seed. Beyond a = 1.4 steps of SGD's largest batches fall again; those of averages tell."""
    rng, x = np.random.default_rng(0), np.array([1.0, 1.0, 0.0])
    parts = [
        measured_steps(SIZES, np.exp(forecast.log_steps(x) + 0.05 * rng.standard_normal(len(SIZES))), optimizer=name)
        for name in ("sgd", "ema")
        for forecast in [Forecast(Setting(), name, 0.0, np.log(SIZES))]
    ]
    alone, together = fit_model(parts[0]), fit_model(pd.concat(parts))
    assert [round(float(x[0]), 1) for x in alone.alternatives] == [1.7]
    assert len(together.alternatives) == 0
    assert together.spectrum_exponent.low <= 1 <= together.spectrum_exponent.high < 1.1


def test_steps_far_from_the_measured_ones_are_predicted(fitted: ModelFit) -> None:
    wanted = np.array([0.5, 1e6])
    truth = exact_steps(0.8, 1.2, 5.0, wanted)
    found = fitted.predict(wanted.tolist())
    np.testing.assert_allclose(found["steps"], truth, rtol=2e-3)
    assert (found["steps_low"] <= found["steps"]).all()
    assert (found["steps"] <= found["steps_high"]).all()


def coverage(truth: tuple[float, float, float], sweeps: int) -> np.ndarray:
    """How often each interval covers, over noisy sweeps with errors of 5 % in steps."""
    rng = np.random.default_rng(0)
    steps, covered = exact_steps(*truth), np.zeros(3)
    for _ in range(sweeps):
        fit = fit_model(measured_steps(SIZES, steps * np.exp(0.05 * rng.standard_normal(len(SIZES)))))
        intervals = (fit.spectrum_exponent, fit.noise_exponent, fit.noise_scale)
        covered += [found.low <= true <= found.high for found, true in zip(intervals, truth, strict=True)]
    return covered


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("truth", [(1.0, 1.0, 1.0), (1.2, 0.8, 3.0), (0.8, 1.2, 5.0)])
def test_intervals_cover_as_often_as_they_say(truth: tuple[float, float, float]) -> None:
    """60 sweeps at 95 %: fewer than 51 covered by chance once in 3,000, for each of nine."""
    covered = coverage(truth, 60)
    assert (covered >= 51).all(), covered


@pytest.mark.slow
def test_the_fastest_optimiser_in_one_line(fitted: ModelFit) -> None:
    choices = fastest(fitted, [4.0, 1e5], [("sgd", 0.0), ("momentum", 0.0), ("ema", 0.0)])
    assert choices["optimizer"].tolist() == ["ema", "momentum"]
    assert (choices["speed_up"] > 1).all()
    line = in_one_line(choices)
    assert line.startswith("ema at 4 (")
    assert "\n" not in line


def test_batch_sizes_below_one_are_not_rounded_to_none() -> None:
    sizes = [0.25, 1.0, 4096.0]
    choices = pd.DataFrame({"batch_size": sizes, "optimizer": "sgd", "power": 0.0, "steps": 9.0, "speed_up": 1.0})
    assert in_one_line(choices) == "sgd at 0.25 to 4,096"


def test_a_target_above_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="target is 9"):
        fit_model(measured_steps([4, 16, 64, 256], [9, 5, 4, 3]), Setting(target=9.0))


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (measured_steps([4, 16, 64], [9, 5, 4]), "3 measurements: the model needs 4 or more"),
        (measured_steps([4, 16, 64, 256], [9, 5, 4, math.inf]), "must be positive and finite"),
        (pd.DataFrame({"batch_size": [4]}), "no column optimizer, power, steps"),
        (measured_steps([4, 16, 64, 256], [9, 5, 4, 3], optimizer="momentum"), "steps of momentum cannot be fitted"),
    ],
)
def test_what_cannot_be_fitted_is_refused(measured: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_model(measured)
