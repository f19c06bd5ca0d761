"""Exact runs: their rows are the closed forms, also of gradients before the preconditioner."""

from __future__ import annotations

import pytest

from rl_scaling.nqm import NQMConfig, Spectrum, noise_scales, risk
from rl_scaling.nqm.runs import records, tuned_grid

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


def test_a_target_above_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="give a risk between 0 and"):
        list(tuned_grid(BASE, [4], 9.0))
