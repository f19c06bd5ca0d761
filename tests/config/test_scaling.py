"""Grids of learning rates are centred by A.3, and grow only where the best lies at an edge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.config import AdaptiveConfig, ConfigError, LearningRates, rate_ratio


def rates_of(**changes: Any) -> LearningRates:
    plain = {"reference_rate": 7e-4, "reference_batch": 80, "turn": 1000.0, "power": 0.5}
    return LearningRates(**(plain | changes))


@given(batch=st.integers(1, 10**7), power=st.floats(0.5, 1), turn=st.floats(1, 1e6))
def test_grid_is_centred_by_a3(batch: int, power: float, turn: float) -> None:
    rates = rates_of(turn=turn, power=power, count=3, spacing=3)
    low, centre, high = rates.grid(batch)
    # A.3 with the maximal rate that makes it pass through the reference.
    maximal = rates.reference_rate * (1 + turn / rates.reference_batch) ** power
    assert centre == pytest.approx(maximal / (1 + turn / batch) ** power, rel=6e-3)
    assert high / centre == pytest.approx(3, rel=2e-2)
    assert centre / low == pytest.approx(3, rel=2e-2)


def test_grid_passes_through_the_reference_and_levels_off() -> None:
    rates = rates_of(count=1)
    assert rates.grid(rates.reference_batch) == [rates.reference_rate]
    assert rates.centre(10**9) == pytest.approx(rates.centre(10**8), rel=1e-4)


def test_grid_grows_only_beyond_the_edge_with_the_best_rate() -> None:
    rates = rates_of(count=3, spacing=2, max_extensions=2)
    low, centre, high = rates.grid(80)
    assert rates.beyond([low, centre, high], centre, 80) is None
    up = rates.beyond([low, centre, high], high, 80)
    assert up == pytest.approx(2 * high, rel=1e-2)
    assert up is not None
    assert rates.beyond([low, centre, high, up], up, 80) == pytest.approx(4 * high, rel=1e-2)
    assert rates.beyond([low, centre, high, up, 2 * up], 2 * up, 80) is None, "two extensions on a side are enough"
    assert rates.beyond([low, centre, high], low, 80) == pytest.approx(low / 2, rel=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": (1e-3, -1.0)}, "learning rate -1.0 in the grid: give positive numbers"),
        ({"reference_rate": float("nan")}, "learning rate nan"),
        ({"count": 0}, "count of 1 or more"),
        ({"spacing": 1.0}, "spacing above 1"),
        ({"max_extensions": -1}, r"max_extensions is -1: give 0 \(none\) or more"),
        ({"count": 10**9, "spacing": 1.1}, "1000000000 learning rates a factor 1.1 apart: give fewer"),
        ({"count": 5, "spacing": 1e200}, "5 learning rates a factor 1e.200 apart"),
        ({"power": 1e300}, "give a number from 0 to 1"),
        ({"turn": 0.0}, "turn is 0.0: give a positive number"),
    ],
)
def test_bad_grids_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rates_of(**options)


def test_an_adaptive_batch_says_what_differs_and_follows_a3() -> None:
    adaptive = AdaptiveConfig(exchange_rate=300, rate_power=1.0)
    assert adaptive.setting == "adaptive r=300 rate_power=1"
    assert adaptive.rate_factor(1000, 250) == rate_ratio(1000, 250, turn=1000, power=1) == 2.5
    with pytest.raises(ConfigError, match=r"rate_power is 2\.0: give a number from 0 to 1"):
        AdaptiveConfig(exchange_rate=1, rate_power=2)
