"""The data behind charts: short, strict JSON, each table once."""

from __future__ import annotations

import json
import math

import altair as alt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis import TaskView
from rl_scaling.report import Figure, Overview, Section, Tables, chart, figures
from rl_scaling.report.charts import MODULES
from rl_scaling.report.figures import SCOPES, Scope, charts_of, rows_of
from rl_scaling.report.page import tables_of
from rl_scaling.report.section import task_parts
from tests.report.synthetic import known_fit, run_rows

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


def modules_of(scope: Scope) -> list[str]:
    return [one.draw.__module__.rpartition(".")[2] for one in charts_of(scope)]


def test_the_order_is_that_of_the_list_and_every_file_of_it_has_a_chart() -> None:
    for scope in SCOPES:
        assert modules_of(scope) == sorted(modules_of(scope), key=MODULES.index)
    assert {name for scope in SCOPES for name in modules_of(scope)} == set(MODULES)


def test_a_chart_from_outside_is_drawn_and_its_tables_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {scope: charts_of(scope) for scope in SCOPES}
    monkeypatch.setattr(figures, "_CHARTS", kept)

    @chart("task", tables=lambda overview: {"own": overview.fit.fits[["task"]], "empty": pd.DataFrame()})
    def own_figure(view: TaskView) -> Figure:
        tables = Tables()
        data = tables.add(view.fixed.runs, ["updates"])
        return Figure("own", view.task, "", alt.Chart(data).mark_point(), tables)

    runs = run_rows(20, 1e-3, 0, rows=5)
    section = Section(heading="Part", runs=runs, fit=known_fit(runs, [1.0]))
    (part,) = task_parts(section)
    assert part.figures[-1].name == "own"
    domains = {part.view.task: "Reinforcement learning"}
    tables = tables_of(Overview(fit=section.fit, domains=domains, runs=1))
    assert tables["own"]["task"].tolist() == [part.view.task]
    assert "empty" not in tables
