"""What is refused before anything is simulated or trained, and what the temperature experiment plans."""

from __future__ import annotations

import pytest

from rl_scaling.config import ConfigError
from rl_scaling.validation.settings import CalibrationPlan, TemperatureSettings, What


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"repeats": 1}, "2 or more"),
        ({"seed": -1}, "seed"),
        ({"groups": (1, 2)}, "groups must be 2"),
        ({"correlations": (1.0,)}, "below 1"),
        ({"problems": ("none",)}, "no problem none"),
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CalibrationPlan(**wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("what", ["learning-rate", "batch-size", "both"])
@pytest.mark.parametrize("factor", [4.0, 16.0])
def test_every_way_lowers_the_temperature_by_the_factor_and_back(what: What, factor: float) -> None:
    (_, *before), (_, rate, batch), (_, *after) = TemperatureSettings(factor=factor).phases(what)
    assert before == after == [0.2, 64]
    assert (0.2 / 64) / (rate / batch) == pytest.approx(factor)
    assert (rate < 0.2) == (what != "batch-size")
    assert (batch > 64) == (what != "learning-rate")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"factor": 0.5}, "above 1"),
        ({"learning_rate": 0.0}, "positive number"),
        ({"batch_size": 60}, "does not divide into 8 groups"),
        ({"label_noise": 1.5}, "between 0 and 1"),
        ({"phase_updates": 7}, "give 8 or more"),
    ],
)
def test_impossible_experiments_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TemperatureSettings(**wrong)  # pyright: ignore[reportArgumentType]
