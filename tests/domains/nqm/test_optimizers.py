from __future__ import annotations

from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.cli.nqm import NQMSteps
from rl_scaling.cli.sweep_domains import SweepNQM
from rl_scaling.domains.nqm.config import OPTIMIZERS, OptimizerName
from rl_scaling.domains.nqm.optimizers import find_optimizer, sgd_modes, sgd_second_moments
from rl_scaling.domains.nqm.response import second_moments
from tests.domains.nqm.reference import TWO_ROOTS


def test_the_one_list_of_names_serves_dispatch_and_commands() -> None:
    assert [find_optimizer(name).tuned for name in OPTIMIZERS] == [1, 2, 2, 2, 3, 3]
    assert get_type_hints(NQMSteps)["optimizer"] == OptimizerName
    assert get_type_hints(SweepNQM)["optimizers"] == tuple[OptimizerName, ...]
    with pytest.raises(ValueError, match="optimizer is 'adam': choose from sgd, momentum"):
        find_optimizer("adam")


@given(st.floats(-9, 0.29).map(lambda x: 10**x), st.integers(1, 10**9))
def test_sgd_agrees_with_the_general_formula(rate: float, steps: int) -> None:
    modes, t = sgd_modes(np.array([rate]), np.zeros(1)), np.array([float(steps)])
    fast, general = sgd_second_moments(modes, t), second_moments(modes, t)
    np.testing.assert_allclose(fast[1], general[1], rtol=1e-13)
    np.testing.assert_allclose(fast[0], general[0], rtol=1e-13, atol=1e-30)


@pytest.mark.parametrize("name", TWO_ROOTS)
def test_the_limit_is_the_steady_state(name: str) -> None:
    rate, coefficient = np.array([1e-6, 0.1, 1.4]), np.array([0.5])
    modes = find_optimizer(name).modes(rate, coefficient)
    start, noise = find_optimizer(name).moments(modes, np.array([1e10]))
    np.testing.assert_allclose(modes.gain * noise, modes.steady_state(), rtol=1e-13)
    assert np.all(start < 1e-200)
