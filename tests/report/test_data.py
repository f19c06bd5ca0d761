"""The data behind charts: short, strict JSON, each table once."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.report.data import Tables, rows_of

_VALUES = st.lists(
    st.floats() | st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf, 1 / 3, 123456.0]), max_size=30
)


@given(_VALUES)
def test_tables_come_back_to_five_digits(values: list[float]) -> None:
    frame = pd.DataFrame({"x": np.array(values, float), "run": [f"r{i % 2}" for i in range(len(values))]})
    tables = Tables()
    name = tables.add(frame, ["run", "x"]).to_dict()["name"]
    rows = rows_of(json.loads(json.dumps(tables[name], allow_nan=False)))
    assert [row["run"] for row in rows] == frame["run"].tolist()
    expected = [v if math.isfinite(v) else None for v in values]
    found = [row["x"] for row in rows]
    assert [x is None for x in found] == [x is None for x in expected]
    assert [x or 0 for x in found] == pytest.approx([x or 0 for x in expected], rel=5.001e-5)


def test_the_same_rows_are_kept_once() -> None:
    frame = pd.DataFrame({"x": [1, 2, 3], "y": [True, False, True]})
    tables = Tables()
    first, again, other = tables.add(frame, ["x"]), tables.add(frame.copy(), ["x"]), tables.add(frame, ["x", "y"])
    assert first.to_dict() == again.to_dict() != other.to_dict()
    assert len(tables) == 2
