"""Tuned steps: the published integers, the true optimum and schedules."""

from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.nqm import power_law, published, risk, steps_to_target
from rl_scaling.nqm.piecewise import best_schedule, risk_and_slopes, shortest_schedule
from rl_scaling.nqm.search import PUBLISHED_RATES

SIZES = (4.0, 256.0, 65536.0)


def naive_steps(batch: float, rates: np.ndarray) -> tuple[float, float]:
    """The last step above the target with the best of some rates, each step looked at."""
    model = published()
    steps = np.arange(1, 40_000)
    above = [float((risk(model, "sgd", steps, rate, batch) >= 0.01).sum()) for rate in rates]
    return min(above), float(rates[int(np.argmin(above))])


def test_the_published_count_is_that_of_looking_at_every_step() -> None:
    found = steps_to_target([1024.0], "sgd", as_published=True)
    rates = PUBLISHED_RATES["sgd"]
    best = found["learning_rate"][0]
    near = rates[np.abs(np.log(rates / best)) < 0.3]
    assert (found["steps"][0], best) == naive_steps(1024.0, near)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "ema"])
def test_the_optimum_is_no_worse_than_the_grid(optimizer: str) -> None:
    grid = steps_to_target(SIZES, optimizer, power=0.5, as_published=True)
    best = steps_to_target(SIZES, optimizer, power=0.5)
    assert (best["steps"] <= grid["steps"] + 1).all()
    steps, rate, size, beta = (best[n].to_numpy() for n in ("steps", "learning_rate", "batch_size", "coefficient"))
    at, before = (risk(published(), optimizer, steps - k, rate, size, beta, 0.5) for k in (0, 1))
    assert (at < 0.01).all(), "the step given is below the target"
    assert (before >= 0.01).all(), "and the one before is not"


def test_steps_scale_with_the_noise() -> None:
    """Twice the noise at twice the batch size is the same problem."""
    loud = steps_to_target([512.0], model=power_law(1000, noise_scale=2.0), target=0.05)
    calm = steps_to_target([256.0], model=power_law(1000), target=0.05)
    assert loud["steps"][0] == calm["steps"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_sizes": [0.0]}, "positive and finite"),
        ({"batch_sizes": [4.0], "target": 100.0}, "give a risk between 0 and"),
        ({"batch_sizes": [4.0], "target": 0.0}, "give a risk between 0 and"),
        ({"batch_sizes": [4.0], "optimizer": "adam"}, "no optimizer 'adam'"),
        ({"batch_sizes": [4.0], "power": -0.1}, "give a number from 0 to 1"),
    ],
)
def test_what_cannot_be_tuned_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        steps_to_target(**arguments)  # pyright: ignore[reportArgumentType]


def test_slopes_of_a_schedule_are_those_of_differences() -> None:
    rates = np.geomspace(1.0, 1e-3, 6)
    risk_now, slopes = risk_and_slopes(published(), rates, 600, 64.0, 0.25)
    for place in range(6):
        nudge = 1e-6 * rates[place] * (np.arange(6) == place)
        up, down = (risk_and_slopes(published(), rates + sign * nudge, 600, 64.0, 0.25)[0] for sign in (1, -1))
        assert slopes[place] == pytest.approx((up - down) / (2 * nudge[place]), rel=1e-6)
    assert risk_and_slopes(published(), np.full(6, 0.3), 600, 64.0)[0] == pytest.approx(
        float(risk(published(), "sgd", 600, 0.3, 64.0))
    )
    assert risk_now > 0


def test_schedules_are_faster_than_any_constant_rate_but_not_than_the_bayes_bound() -> None:
    constant = float(steps_to_target([64.0])["steps"][0])
    found = shortest_schedule(published(), 64.0, 0.01, constant)
    assert found.risk < 0.01
    assert 495_016 / 64 < found.steps < constant / 3
    assert best_schedule(published(), 0.98 * found.steps, 64.0).risk > 0.01
