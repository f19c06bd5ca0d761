"""Quasi-random points fill their box, and the best of them says which wall it is near."""

from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.config import ConfigError
from rl_scaling.sweeps.search import Dimension, remarks, sobol_points

SPACE = [Dimension("learning rate", 1e-4, 1.0), Dimension("1 - momentum", 0.01, 0.5)]


def test_points_fill_every_quarter_evenly_on_a_logarithmic_scale() -> None:
    points = sobol_points(SPACE, 0, 64)
    for dimension in SPACE:
        logs = np.log([point[dimension.name] for point in points])
        counts, _ = np.histogram(logs, bins=4, range=(np.log(dimension.low), np.log(dimension.high)))
        assert np.abs(counts - 16).max() <= 1  # values of four digits may step over a quarter's end


def test_more_points_leave_those_before_as_they_are() -> None:
    assert [*sobol_points(SPACE, 0, 5), *sobol_points(SPACE, 5, 20)] == sobol_points(SPACE, 0, 25)


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.5, ["raise"]), (0.01, []), (2e-4, ["lower"])], ids=["upper", "inside", "lower"]
)
def test_the_bound_to_move_is_named(rate: float, expected: list[str]) -> None:
    found = remarks(SPACE, {"learning rate": rate, "1 - momentum": 0.1})
    assert [remark.split()[-2] for remark in found] == expected
    assert all(remark.startswith(f"learning rate {rate:g} is near its") for remark in found)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, float("inf"))])
def test_bounds_out_of_order_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="positive bounds in order"):
        Dimension("learning rate", *bounds)
