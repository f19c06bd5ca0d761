"""Adaptive runs are drawn beside the front and counted in nothing else."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from rl_scaling.analysis import SweepFit, fit_runs
from rl_scaling.analysis.views import Findings
from rl_scaling.report import Section
from rl_scaling.report.charts.noise_scale import adaptive_batch_figure
from rl_scaling.report.figures import rows_of
from rl_scaling.report.page import page_html
from rl_scaling.report.section import TaskPart, task_parts
from tests.analysis.made_runs import adaptive_run_along, run_along
from tests.report.test_charts import drawing, marks, named

GOALS = [2.0, 5.0, 9.0]
RATES = (50.0, 800.0)


def growing(s: float) -> float:
    return 100.0 + 400.0 * s


@pytest.fixture(scope="module")
def fixed() -> pd.DataFrame:
    return pd.concat([run_along(lambda _, b=b: b, growing) for b in (20.0, 80.0, 320.0, 1280.0)], ignore_index=True)


@pytest.fixture(scope="module")
def adaptive() -> pd.DataFrame:
    return pd.concat([adaptive_run_along(r, growing) for r in RATES], ignore_index=True)


Drawn = tuple[TaskPart, SweepFit, str]


def drawn(runs: pd.DataFrame) -> Drawn:
    fit = fit_runs(runs, GOALS)
    section = Section(heading="Part", runs=runs, fit=fit)
    (part,) = task_parts(section)
    return part, fit, page_html([section], title="Title", parts=[[part]])


@pytest.fixture(scope="module")
def both(fixed: pd.DataFrame, adaptive: pd.DataFrame) -> Drawn:
    return drawn(pd.concat([fixed, adaptive], ignore_index=True))


def test_adaptive_runs_are_diamonds_beside_the_front(fixed: pd.DataFrame, both: Drawn) -> None:
    part, fit, text = both
    alone, _, without = drawn(fixed)
    assert len(fit.adaptive) == len(RATES) * len(GOALS)
    more = len(marks(named(part, "pareto-front"), "mark-symbol")) - len(
        marks(named(alone, "pareto-front"), "mark-symbol")
    )
    assert more == len(fit.adaptive)
    words = ["".join(element.itertext()) for element in drawing(named(part, "pareto-front")).iter()]
    assert {"adaptive r=50", "adaptive r=800"} <= set(words)
    assert "Diamonds" in named(part, "pareto-front").caption
    assert "Diamonds" not in named(alone, "pareto-front").caption
    assert len(marks(named(part, "adaptive-batch-size"), "mark-line")) == len(RATES)
    # All that is said of fixed batch sizes is said of the fixed runs alone.
    shared = [figure for figure in part.figures if figure.name not in ("pareto-front", "adaptive-batch-size")]
    assert [figure.name for figure in shared] == [
        figure.name for figure in alone.figures if figure.name != "pareto-front"
    ]
    for figure in shared:
        assert figure.caption == named(alone, figure.name).caption
        assert [len(rows_of(table)) for table in figure.tables.values()] == [
            len(rows_of(table)) for table in named(alone, figure.name).tables.values()
        ]
    assert "Adaptive batch size" in text
    assert "Adaptive batch size" not in without


def test_the_table_has_gamma_three_times(both: Drawn) -> None:
    _, fit, text = both
    rows = re.findall(r"<tr>(.*?)</tr>", text.split("Adaptive batch size")[1], flags=re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    first = next(row for row in cells if len(row) == 8)
    assert first[:2] == ["2", "adaptive r=50"]
    found = [float(cell.split()[0]) for cell in first[5:]]
    expected = [fit.adaptive["gamma_observed"][0], fit.adaptive["gamma_predicted"][0], fit.fits["gamma_predicted"][0]]
    np.testing.assert_allclose(found, expected, atol=0.006)


def test_adaptive_runs_alone_make_a_page(adaptive: pd.DataFrame) -> None:
    part, _, text = drawn(adaptive)
    assert "adaptive-batch-size" in [figure.name for figure in part.figures]
    assert "No Pareto front" in text


@pytest.mark.parametrize(
    ("unit", "words"), [("frames", "in steps of whole groups of environments"), ("examples", "in whole examples")]
)
def test_what_a_batch_changes_by_is_said_in_the_words_of_the_task(
    adaptive: pd.DataFrame, unit: str, words: str
) -> None:
    (view,) = Findings(runs=adaptive.assign(unit=unit), fit=fit_runs(adaptive, GOALS)).tasks()
    figure = adaptive_batch_figure(view)
    assert figure is not None
    assert words in figure.caption
