"""The searches against what they shorten: one bisection for each point, a minimum known by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.domains.nqm.search import GridHit, bisect_grid, newton_step, smooth_minimum, stencil


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
