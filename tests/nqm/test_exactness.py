"""The table of `nqm check`: closed forms, recursion and simulation agree, and a wrong setting would be noticed."""

from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.nqm import Spectrum, risk, simulate
from rl_scaling.nqm.exactness import exactness


@pytest.mark.statistical
def test_closed_forms_are_the_recursion_and_simulated_updates_agree() -> None:
    """Four optimisers at four settings: sixteen distances in standard errors, above 3.5 by chance once in 130."""
    table = exactness(seed=1)
    assert table["standard_errors"].max() < 3.5
    assert table["relative_error"].max() < 1e-12


def test_a_wrong_learning_rate_would_be_noticed() -> None:
    small = Spectrum.power_law(50, bins=50)
    found = simulate(small, np.full(40, 0.3), 4.0, runs=4_000)
    wrong = float(risk(small, 40, learning_rate=0.33, batch_size=4.0))
    assert abs(wrong - found.mean[-1]) > 5 * found.standard_error[-1]
