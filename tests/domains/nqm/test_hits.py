from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_scaling.domains.nqm.dynamics import diverges, risk
from rl_scaling.domains.nqm.hits import Hits, find_hits, start_bounds
from rl_scaling.domains.nqm.response import second_moments
from rl_scaling.domains.nqm.spectrum import Spectrum
from tests.domains.nqm.reference import coefficients, modes_of, names, rates

PROBLEM = Spectrum.power_law(300, bins=25)
STEPS = 1500


@settings(max_examples=80)
@given(names, st.floats(-3, 0.6), st.floats(-3, -0.01), st.floats(0, 5), st.floats(0, 1))
def test_hits_equal_those_of_the_listed_curve(
    name: str, log_rate: float, log_lag: float, log_batch: float, share: float
) -> None:
    coefficient = 0.0 if name == "sgd" else 1 - 10**log_lag
    setting = {"learning_rate": 10**log_rate, "optimizer": name, "coefficient": coefficient}
    if diverges(PROBLEM, **setting):
        return
    curve = risk(PROBLEM, np.arange(STEPS), batch_size=10**log_batch, **setting)
    target = float(np.quantile(curve, share)) * (1 + 1e-9)
    hits = find_hits(PROBLEM, target, batch_size=10**log_batch, **setting, max_steps=10**8)
    assert hits.first == np.flatnonzero(curve <= target)[0]
    above = np.flatnonzero(curve > target)
    if hits.sustained is None or hits.sustained >= STEPS:
        assert curve[-1] > 0.5 * target
    else:
        assert hits.sustained == (above[-1] + 1 if len(above) else 0)


def test_first_and_sustained_hits_differ_when_the_risk_swings() -> None:
    hits = find_hits(
        Spectrum.power_law(), 0.01, learning_rate=3.5, batch_size=4**10, optimizer="momentum", coefficient=0.97
    )
    assert hits.first is not None
    assert hits.sustained is not None
    assert hits.first < hits.sustained < 1.5 * hits.first


def test_hits_that_never_come() -> None:
    common = {"batch_size": 4, "optimizer": "sgd"}
    assert find_hits(PROBLEM, 0.01, learning_rate=2.5, **common) == Hits(None, None)
    assert find_hits(PROBLEM, 0.01, learning_rate=1.5, **common, max_steps=10**6) == Hits(None, None)
    assert find_hits(PROBLEM, 10.0, learning_rate=0.1, **common) == Hits(0, 0)
    with pytest.raises(ValueError, match="target"):
        find_hits(PROBLEM, 0.0, learning_rate=0.1, **common)


def test_hits_after_a_billion_steps_take_no_time() -> None:
    hits = find_hits(Spectrum.power_law(), 0.01, learning_rate=1e-6, batch_size=2**40)
    assert hits.first == hits.sustained
    assert hits.first is not None
    values = risk(Spectrum.power_law(), [hits.first - 1, hits.first], learning_rate=1e-6, batch_size=2**40)
    assert values[0] > 0.01 >= values[1]
    assert hits.first > 10**9


@settings(max_examples=300)
@given(names, rates, coefficients, st.integers(1, 300), st.integers(0, 60))
def test_bounds_hold_over_every_range_of_steps(
    name: str, rate: float, coefficient: float, first: int, more: int
) -> None:
    modes = modes_of(name, rate, coefficient)
    if not modes.stable.all():
        return
    steps = np.arange(first, first + more + 1, dtype=float)
    squares = second_moments(modes, steps)[0]
    low, high = start_bounds(modes, steps[:1], steps[-1:], squares[:1], squares[-1:])
    assert low[0] <= squares.min() * (1 + 1e-9) + 1e-14
    assert high[0] >= squares.max() * (1 - 1e-9) - 1e-14
