from __future__ import annotations

import numpy as np
import pytest

from rl_scaling.domains.nqm.exactness import exactness
from rl_scaling.nqm import Spectrum, risk, simulate


@pytest.mark.slow
@pytest.mark.statistical
def test_every_row_of_the_table_keeps_its_promise() -> None:
    """Five distances in standard errors, each the largest of three: above 3.5 by chance once in 140."""
    rows = exactness(cases=20, seed=1)
    for row in rows:
        if row.unit == "standard errors":
            assert row.largest_difference < 3.5
        elif "groups" in row.compared:
            assert row.largest_difference < 0.003
        else:
            assert row.largest_difference < 1e-12
    assert len({row.compared for row in rows}) == len(rows) == 25


def test_a_wrong_learning_rate_would_be_noticed() -> None:
    small = Spectrum.power_law(50, bins=50)
    found = simulate(small, np.full(40, 0.3), 4.0, runs=4_000)
    wrong = float(risk(small, 40, learning_rate=0.33, batch_size=4.0))
    assert abs(wrong - found.mean[-1]) > 5 * found.standard_error[-1]
