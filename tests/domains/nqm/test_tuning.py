from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from rl_scaling.domains.nqm.dynamics import risk
from rl_scaling.domains.nqm.hits import find_hits
from rl_scaling.domains.nqm.schedules import bayes_bound, small_batch_limit
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.tuning import TunedSteps, steps_to_target

SMALL = Spectrum.power_law(100, bins=30)


@pytest.mark.parametrize("optimizer", ["sgd", "ema"])
def test_a_grid_gives_the_least_first_hit_of_its_points(optimizer: str) -> None:
    rates, coefficients = np.logspace(-2, 0.5, 12), np.array([0.0, 0.5, 0.9])
    for row in steps_to_target([4, 64], optimizer=optimizer, spectrum=SMALL, method="grid", grid=(rates, coefficients)):
        pairs = list(itertools.product(rates, coefficients if optimizer == "ema" else [0.0]))
        hits = [
            find_hits(
                SMALL,
                0.01,
                learning_rate=rate,
                batch_size=row.batch_size,
                optimizer=optimizer,
                coefficient=c,
                max_steps=10**7,
            ).first
            for rate, c in pairs
        ]
        assert row.steps == min(hit for hit in hits if hit is not None)
        assert hits[pairs.index((row.learning_rate, row.coefficient))] == row.steps


@pytest.fixture(scope="module", params=["sgd", "momentum", "nesterov", "ema"])
def tuned(request: pytest.FixtureRequest) -> tuple[str, list[TunedSteps]]:
    """An optimiser, and its optimum at four batch sizes."""
    return request.param, steps_to_target([1, 64, 2**12, 2**40], optimizer=request.param, spectrum=SMALL)


def test_the_optimum_is_no_worse_than_a_fine_grid_and_is_reached(tuned: tuple[str, list[TunedSteps]]) -> None:
    optimizer, rows = tuned
    for row in rows:
        assert row.status == "reached"
        assert row.steps is not None
        setting: dict[str, Any] = {"optimizer": optimizer, "batch_size": row.batch_size}
        best: dict[str, Any] = {"learning_rate": row.learning_rate, "coefficient": row.coefficient}
        assert float(risk(SMALL, row.steps, **setting, **best)) <= 0.01
        lags = (1 - row.coefficient) * np.geomspace(0.8, 1.25, 1 if optimizer == "sgd" else 60)
        rates = row.learning_rate * np.geomspace(0.8, 1.25, 121)
        near = {
            "learning_rate": rates[:, None],
            "coefficient": np.clip(1 - lags, 0, None) if optimizer != "sgd" else 0.0,
        }
        # the ripples of underdamped settings may hide a few steps from the search: 2 % at most
        earlier = math.floor(0.98 * row.steps) - 1
        assert float(risk(SMALL, earlier, **setting, **near).min()) > 0.01


def test_no_optimiser_beats_the_bayes_bound_and_batches_save_steps(tuned: tuple[str, list[TunedSteps]]) -> None:
    _, rows = tuned
    steps = np.array([row.steps for row in rows], dtype=np.float64)
    assert np.all(np.diff(steps) <= 0)
    assert np.all(bayes_bound(SMALL, steps * [row.batch_size for row in rows]) <= 0.01)


def test_small_batches_cost_the_examples_of_the_limit() -> None:
    limit = small_batch_limit(SMALL, 0.01)
    (row,) = steps_to_target([1e-3], spectrum=SMALL)
    assert row.steps is not None
    assert row.steps * 1e-3 == pytest.approx(limit.examples, rel=1e-3)
    assert row.learning_rate / 1e-3 == pytest.approx(limit.learning_rate_per_example, rel=1e-2)


def test_preconditioning_scales_with_the_problem() -> None:
    """Behind H^power all that counts is h^(1 - power): a perfect preconditioner needs one step without noise."""
    (row,) = steps_to_target([2**40], power=1.0, spectrum=SMALL)
    assert row.steps == 1
    assert row.learning_rate == pytest.approx(1.0, abs=0.2)


def test_results_that_say_what_is_wrong() -> None:
    (row,) = steps_to_target([4], spectrum=SMALL, target=10.0)
    assert (row.steps, row.status) == (0, "reached at the start")
    (row,) = steps_to_target([4], spectrum=SMALL, method="grid", grid=([2.0, 3.0], [0.0]))
    assert (row.steps, row.status) == (None, "diverges")
    (row,) = steps_to_target([4], spectrum=SMALL, method="grid", grid=([1.0], [0.0]))
    assert row.steps is None
    assert "below the lowest steady state" in row.status
    (row,) = steps_to_target([4], spectrum=SMALL, max_steps=100)
    assert (row.steps, row.status) == (None, "unreachable: not within 100 steps")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.0}, "target"),
        ({"target": math.nan}, "target"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"method": "guess"}, "method"),
        ({"power": 2.0}, "power"),
        ({"batch_sizes": [0]}, "batch sizes"),
        ({"max_steps": 0}, "max_steps"),
        ({"method": "published", "grid": ([1.0], [0.0])}, "grid"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"batch_sizes": [4], "spectrum": SMALL, **change}
    with pytest.raises(ValueError, match=message):
        steps_to_target(**arguments)
