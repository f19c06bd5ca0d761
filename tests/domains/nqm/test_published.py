from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.domains.nqm.config import BATCH_SIZES
from rl_scaling.domains.nqm.published import published_grid, published_hit
from rl_scaling.domains.nqm.spectrum import Spectrum
from tests.domains.nqm.reference import published_steps


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
