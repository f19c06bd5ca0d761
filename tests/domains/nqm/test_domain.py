"""Exact runs: their rows are the closed forms, also of gradients before the preconditioner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rl_scaling.domains.nqm.domain import records, tuned_grid
from rl_scaling.nqm import Method, NQMConfig, Spectrum, noise_scales, risk, risk_curve

BASE = NQMConfig(optimizer="sgd", power=0.5, batch_size=64, learning_rate=0.05, updates=500)


def test_rows_are_risk_and_raw_noise_moments() -> None:
    spectrum = Spectrum.power_law()
    row = list(records(BASE))[-1]
    assert row.updates == 500
    assert row.loss == pytest.approx(float(risk(spectrum, 500, learning_rate=0.05, batch_size=64, power=0.5)), 1e-12)
    assert row.trace_cov == pytest.approx(spectrum.trace)


def test_raw_moments_at_the_start_do_not_depend_on_the_preconditioner() -> None:
    problem = Spectrum.power_law(200)
    plain, raw = (
        noise_scales(problem, 0, learning_rate=0.1, batch_size=4, power=power, preconditioned=False)
        for power in (0.0, 0.7)
    )
    assert raw.grad_sq_norm == pytest.approx(plain.grad_sq_norm, rel=1e-12)
    assert raw.b_noise == pytest.approx(plain.b_noise, rel=1e-12)


def test_a_diverging_run_has_its_first_row_alone() -> None:
    config = NQMConfig(optimizer="momentum", coefficient=0.5, batch_size=4, learning_rate=3.1, updates=100)
    (row,) = records(config)
    assert (row.updates, row.loss) == (0, pytest.approx(Spectrum.power_law().initial_risk))


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [
        ("sgd", Method()),
        ("momentum", Method(momentum=0.97)),
        ("ema", Method(averaging=0.97)),
        ("momentum-ema", Method(momentum=0.97, averaging=0.9)),
    ],
)
def test_the_first_hit_of_a_target_has_its_row_and_so_has_the_update_before(optimizer: str, method: Method) -> None:
    numbers: dict[str, Any] = {"batch_size": 4096, "learning_rate": 1.0, "updates": 10_000}
    if optimizer == "ema":
        config = NQMConfig(optimizer=optimizer, coefficient=method.averaging, **numbers)
    else:
        config = NQMConfig(optimizer=optimizer, coefficient=method.momentum, averaging=method.averaging, **numbers)
    rows = {row.updates: row.loss for row in records(config, (0.1, 0.03))}
    risks = risk_curve(Spectrum.power_law(), np.full(10_000, 1.0), 4096, method)
    for target in (0.1, 0.03):
        first = int(np.argmax(risks <= target))
        assert rows[first] <= target < rows[first - 1]


def test_a_target_that_is_never_reached_adds_no_row() -> None:
    assert len(list(records(BASE, (1e-9,)))) == len(list(records(BASE)))


def test_a_target_above_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="give a risk between 0 and"):
        list(tuned_grid(BASE, [4], 9.0))
