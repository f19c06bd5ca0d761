"""Charts come in the order of the list, wherever they were imported first; one's own come last, with their tables."""

from __future__ import annotations

import altair as alt
import pandas as pd
import pytest

from rl_scaling.analysis import TaskView
from rl_scaling.report import Figure, Overview, Section, Tables, chart, registry
from rl_scaling.report.charts import MODULES
from rl_scaling.report.registry import SCOPES, Scope, charts_of
from rl_scaling.report.section import task_parts
from rl_scaling.report.table_files import tables_of
from tests.report.synthetic import known_fit, run_rows


def modules_of(scope: Scope) -> list[str]:
    return [one.draw.__module__.rpartition(".")[2] for one in charts_of(scope)]


def test_the_order_is_that_of_the_list_and_every_file_of_it_has_a_chart() -> None:
    for scope in SCOPES:
        assert modules_of(scope) == sorted(modules_of(scope), key=MODULES.index)
    assert {name for scope in SCOPES for name in modules_of(scope)} == set(MODULES)


def test_a_chart_from_outside_is_drawn_and_its_tables_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {scope: charts_of(scope) for scope in SCOPES}
    monkeypatch.setattr(registry, "_CHARTS", kept)

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
