"""Steps as a smooth function of the model's parameters: the optimum's own, with their slopes."""

from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.domains.nqm.config import Setting
from rl_scaling.domains.nqm.forecast import Forecast
from rl_scaling.domains.nqm.spectrum import Parameters
from rl_scaling.domains.nqm.tuning import as_table, steps_to_target

SIZES = np.geomspace(4.0, 65536.0, 8)


@pytest.mark.parametrize(("optimizer", "power"), [("sgd", 0.0), ("sgd", 0.5), ("ema", 0.0)])
def test_a_forecast_is_the_optimum(optimizer: str, power: float) -> None:
    """Between the step before the first hit and the hit, up to a fifth of a step at the limit of stability."""
    sizes = np.array([4.0, 300.0, 1e5])
    spectrum = Parameters(1.2, 0.8, 3.0).spectrum(200)
    settings = {"optimizer": optimizer, "power": power, "target": 0.05}
    steps = as_table(steps_to_target(sizes, spectrum=spectrum, **settings))["steps"].to_numpy()
    found = np.exp(
        Forecast(Setting(200, 0.05), optimizer, power, np.log(sizes)).log_steps(np.array([1.2, 0.8, np.log(3.0)]))
    )
    assert np.all((steps - 1.2 <= found) & (found <= steps + 0.2))


def test_slopes_are_finite_differences() -> None:
    forecast = Forecast(Setting(), "ema", 0.0, np.log(SIZES))
    x, width = np.array([1.1, 0.9, 0.5]), 1e-2
    forecast.log_steps(x)
    found = forecast.slopes(x)
    for place, unit in enumerate(np.eye(3) * width):
        ahead, behind = forecast.log_steps(x + unit), forecast.log_steps(x - unit)
        np.testing.assert_allclose(found[:, place], (ahead - behind) / (2 * width), rtol=0.03, atol=0.03)
