"""The searches against what they shorten: one bisection for each point, a minimum known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.domains.nqm.config import BATCH_SIZES
from rl_scaling.domains.nqm.search import (
    GridHit,
    bisect_grid,
    newton_step,
    published_grid,
    published_hit,
    smooth_minimum,
    stencil,
)
from rl_scaling.domains.nqm.spectrum import Spectrum
from tests.domains.nqm.reference import published_steps


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=9))
def test_a_grid_is_bisected_as_each_point_would_be(first: list[int]) -> None:
    """Points that reach the target from a number of steps on: the least wins, of equals the first."""
    steps = np.array(first)
    hit = bisect_grid(lambda points, at: steps[points] <= at, len(steps), 1001)
    assert hit == GridHit(int(steps.argmin()), int(steps.min()) - 1)
    assert bisect_grid(lambda points, at: steps[points] <= at, len(steps), int(steps.min()) + 1) is not None
    assert bisect_grid(lambda points, at: np.zeros(len(points), bool), len(steps), 1001) is None


def test_a_minimum_beside_a_wall_is_found() -> None:
    def walled(points: np.ndarray) -> np.ndarray:
        x, y = points[..., 0], points[..., 1]
        return np.where(x < 1.0, np.nan, (x - 1.01) ** 2 + 3 * (y + 0.5 * x) ** 2)

    point, value = smooth_minimum(walled, np.array([2.0, 1.0]))
    np.testing.assert_allclose(point, [1.01, -0.505], atol=1e-4)
    assert 0 <= value < 1e-8


def test_a_step_on_a_quadratic_ends_in_its_minimum_and_goes_downhill_on_a_saddle() -> None:
    offsets, quadratic = stencil(2)
    values = (offsets[:, 0] - 0.5) ** 2 + (offsets[:, 0] + 2 * offsets[:, 1] - 1) ** 2
    np.testing.assert_allclose(newton_step(quadratic @ values, 2), [0.5, 0.25], atol=1e-12)
    saddle = offsets[:, 0] - offsets[:, 0] ** 2 + offsets[:, 1] ** 2
    assert newton_step(quadratic @ saddle, 2)[0] < 0


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 0.75])
def test_sgd_integer_for_integer(power: float) -> None:
    rates = np.logspace(-5, 0.5, 100)
    for batch_size in BATCH_SIZES[::3]:
        expected = published_steps("sgd", batch_size, power, [(rate, 0.0) for rate in rates])
        hit = published_hit(Spectrum.published(), batch_size, power=power)
        assert hit is not None
        assert (hit.index, hit.steps) == (int(np.argmin(expected)), min(expected))


@pytest.mark.parametrize("optimizer", ["momentum", "ema"])
def test_momentum_and_averages_integer_for_integer_around_the_best(optimizer: str) -> None:
    """Every 97th point of the grid and the winner with its neighbours; all of the grid in the slow test below."""
    rates, coefficients = published_grid(optimizer)
    hit = published_hit(Spectrum.published(), 4**6, optimizer=optimizer)
    assert hit is not None
    near = [hit.index + step for step in (-21, -20, -1, 0, 1, 20, 21)] + list(range(0, len(rates), 97))
    found = published_steps(optimizer, 4**6, 0.0, [(rates[i], coefficients[i]) for i in near])
    assert found[3] == hit.steps
    assert min(found) == hit.steps


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "power", "batch_size"), [("momentum", 0.0, 4**6), ("ema", 0.5, 4**3)])
def test_whole_grids_integer_for_integer(optimizer: str, power: float, batch_size: int) -> None:
    points = list(zip(*published_grid(optimizer), strict=True))
    expected = published_steps(optimizer, batch_size, power, points)
    hit = published_hit(Spectrum.published(), batch_size, optimizer=optimizer, power=power)
    assert hit is not None
    assert (hit.index, hit.steps) == (int(np.argmin(expected)), min(expected))


def test_a_target_out_of_reach() -> None:
    assert published_hit(Spectrum.published(), 4, target=1e-9) is None
