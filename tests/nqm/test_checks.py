from __future__ import annotations

import pytest

from rl_scaling.nqm.checks import exactness


@pytest.mark.slow
def test_every_row_of_the_table_keeps_its_promise() -> None:
    rows = exactness(cases=20, seed=1)
    for row in rows:
        if row.unit == "standard errors":
            assert row.largest_difference < 3.5
        elif "groups" in row.compared:
            assert row.largest_difference < 0.003
        else:
            assert row.largest_difference < 1e-12
    assert len({row.compared for row in rows}) == len(rows) == 21
