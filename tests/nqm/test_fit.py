"""The model fitted to steps: exponents that are known come back, as often as the interval says."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rl_scaling.nqm import power_law, steps_to_target
from rl_scaling.nqm.fit import ModelFit, fastest, fit_model, in_one_line, measured_steps

SIZES = 4.0 ** np.arange(1, 9)


def exact_steps(exponent: float, noise_exponent: float, scale: float) -> np.ndarray:
    model = power_law(10_000, exponent, noise_exponent, scale)
    return steps_to_target(SIZES, model=model)["steps"].to_numpy()


@pytest.fixture(scope="module")
def fitted() -> ModelFit:
    return fit_model(measured_steps(SIZES, exact_steps(0.8, 1.2, 5.0)))


def test_exact_steps_give_back_what_made_them(fitted: ModelFit) -> None:
    """To the precision of the splines, which are off by up to two per cent in log steps."""
    assert fitted.scatter < 0.02
    assert fitted.spectrum_exponent.low <= 0.8 <= fitted.spectrum_exponent.high
    assert fitted.spectrum_exponent.value == pytest.approx(0.8, abs=0.02)
    assert fitted.noise_exponent.value == pytest.approx(1.2, abs=0.2)
    assert math.log(fitted.noise_scale.value) == pytest.approx(math.log(5.0), abs=0.4)


def test_steps_far_from_the_measured_ones_are_foretold(fitted: ModelFit) -> None:
    wanted = np.array([0.5, 1e6])
    truth = steps_to_target(wanted, model=power_law(10_000, 0.8, 1.2, 5.0))["steps"].to_numpy()
    found = fitted.predict(wanted)
    np.testing.assert_allclose(found["steps"], truth, rtol=0.1)
    assert (found["steps_low"] <= found["steps"]).all()
    assert (found["steps"] <= found["steps_high"]).all()


@pytest.mark.statistical
@pytest.mark.parametrize("truth", [(1.0, 1.0, 1.0), (1.2, 0.8, 3.0)])
def test_intervals_cover(truth: tuple[float, float, float]) -> None:
    """40 noisy sweeps, errors of 5 % in steps: at 95 % fewer than 33 of 40 by chance once in 2,000."""
    rng = np.random.default_rng(0)
    steps, covered = exact_steps(*truth), np.zeros(3)
    for _ in range(40):
        fit = fit_model(measured_steps(SIZES, steps * np.exp(0.05 * rng.standard_normal(len(SIZES)))))
        intervals = (fit.spectrum_exponent, fit.noise_exponent, fit.noise_scale)
        covered += [found.low <= true <= found.high for found, true in zip(intervals, truth, strict=True)]
    assert (covered >= 33).all(), covered


def test_the_fastest_optimiser_in_one_line(fitted: ModelFit) -> None:
    choices = fastest(fitted, [4.0, 1e5], [("sgd", 0.0), ("momentum", 0.0), ("ema", 0.0)])
    assert choices["optimizer"].tolist() == ["ema", "momentum"]
    assert (choices["speed_up"] > 1).all()
    line = in_one_line(choices)
    assert line.startswith("ema at 4 (")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (measured_steps([4, 16, 64], [9, 5, 4]), "3 measurements: the model needs 4 or more"),
        (measured_steps([4, 16, 64, 256], [9, 5, 4, math.inf]), "must be positive and finite"),
        (pd.DataFrame({"batch_size": [4]}), "no column optimizer, power, steps"),
    ],
)
def test_what_cannot_be_fitted_is_refused(measured: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_model(measured)
