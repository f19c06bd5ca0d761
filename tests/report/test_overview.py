"""The overview of all domains: right numbers, honest words, files that can be read back."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import altair as alt
import pandas as pd
import pytest

from rl_scaling.analysis import SweepFit
from rl_scaling.analysis.agreement import scales
from rl_scaling.report import Overview, Section
from rl_scaling.report.charts.fronts import model_figure
from rl_scaling.report.figures import draw_all
from rl_scaling.report.overview import PUBLISHED, answer, published_pairs, scales_table
from rl_scaling.report.page import page_html, tables_of, write_tables
from tests.report.synthetic import known_fit, run_rows, sweep_rows, view_of

TASKS = {
    "NQM sgd": "Noisy quadratic model",
    "digits-mlp sgd": "Supervised learning",
    "Breakout a2c": "Reinforcement learning",
}


def _joined(fits: list[SweepFit]) -> SweepFit:
    return SweepFit(
        *(pd.concat(tables) for tables in zip(*((f.fronts, f.learning_rates, f.fits) for f in fits), strict=True))
    )


@pytest.fixture(scope="module")
def overview() -> Overview:
    sizes = (20, 80, 320, 1280)
    sweeps = [sweep_rows(sizes, seeds=(0,), rows=30, frames=3_000_000, task=task) for task in TASKS]
    fit = _joined([known_fit(sweep, [2, 5, 500]) for sweep in sweeps])
    return Overview(fit=fit, domains=TASKS, runs=36, command="rl-scaling report results")


def test_one_point_per_goal_and_every_published_pair(overview: Overview) -> None:
    (figure,) = draw_all("overview", overview)
    tables = {tuple(columns): columns for columns in figure.tables.values()}
    points = next(columns for names, columns in tables.items() if "domain" in names and "goal" in names)
    task = points["task"]
    names = task if isinstance(task, list) else [task["values"][i] for i in task["places"]]
    assert sum(name in TASKS for name in names) == 3 * 2
    assert len(names) - 6 == len(published_pairs())
    assert "36 runs" in figure.caption
    alt.LayerChart.from_dict(figure.chart.to_dict())  # a valid specification


def test_nothing_to_compare(overview: Overview) -> None:
    unknown = overview.fit.fits.assign(noise_scale_mean=math.nan)
    fit = SweepFit(overview.fit.fronts, overview.fit.learning_rates, unknown)
    empty = Overview(fit=fit, domains=TASKS, runs=1)
    assert draw_all("overview", empty) == []
    assert "No task has both" in answer(empty.agreements)


def test_the_answer_has_the_numbers(overview: Overview) -> None:
    words = re.sub("<[^>]+>", "", answer(overview.agreements))
    # every B_simple of the synthetic fits is 0.6 of its B_crit
    assert "6 goals of 3 tasks" in words
    assert words.startswith("Yes, to within its order of magnitude. Over 6 goals")
    assert "typical factor of 1.7; on average" in words  # the interval has no width
    assert "By domain" in words


def test_the_answer_names_the_task_that_is_farthest_off(overview: Overview) -> None:
    fits = overview.fit.fits.copy()
    fits.loc[fits["task"] == "NQM sgd", "noise_scale_mean"] /= 100
    far = Overview(
        fit=SweepFit(overview.fit.fronts, overview.fit.learning_rates, fits), domains=TASKS, runs=overview.runs
    )
    words = re.sub("<[^>]+>", "", answer(far.agreements, far.farthest))
    assert "Farthest off is NQM sgd, whose critical batch size is 170 times its noise scale" in words
    assert "without it the typical factor is 1.7." in words
    assert words.startswith("To within its order of magnitude, but not for NQM sgd.")


def test_the_page_leads_with_the_overview(overview: Overview) -> None:
    runs = sweep_rows((20, 80, 320), seeds=(0,), rows=20, task="Breakout a2c")
    section = Section(heading="Part", runs=runs, fit=known_fit(runs, [2]))
    text = page_html([section], title="T", overview=overview)
    assert text.index('id="part-0"') < text.index("All domains on one page</h2>") < text.index('id="part-1"')
    assert 'href="#part-1">Part</a>' in text


def test_scales_are_of_the_first_and_the_last_goal(overview: Overview) -> None:
    table = scales(overview.fit.fits, TASKS)
    assert table["task"].tolist() == list(TASKS)
    row = table.iloc[0]
    assert (row["first_goal"], row["last_goal"]) == (2, 5)
    fits = overview.fit.fits.set_index(["task", "goal"])
    assert row["critical_batch_first"] == fits.loc[("NQM sgd", 2), "critical_batch"]
    assert row["noise_scale_mean"] == fits.loc[("NQM sgd", 5), "noise_scale_mean"]
    assert math.isnan(row["noise_scale_first"]), "unresolved at the first goal"
    text = scales_table(table)
    assert "at least" in text
    assert text.count("<tr>") == 1 + 3 + len(PUBLISHED)


def test_tables_can_be_read_back(overview: Overview, tmp_path: Path) -> None:
    tables = tables_of(overview)
    written = write_tables(tables, tmp_path)
    assert len(written) == 3 * len(tables)
    fits = pd.read_parquet(tmp_path / "fits.parquet")
    pd.testing.assert_frame_equal(fits, overview.fit.fits.reset_index(drop=True), check_dtype=False)
    assert len(pd.read_csv(tmp_path / "fits.csv")) == len(fits)
    lines = (tmp_path / "agreement.md").read_text().splitlines()
    assert len(lines) == 2 + 5  # everything, all but one, three domains
    assert len({line.count("|") for line in lines}) == 1


def test_cells_of_markdown_stay_cells(tmp_path: Path) -> None:
    write_tables({"t": pd.DataFrame({"a|b": ["x|y\nz"], "c": [1.0]})}, tmp_path)
    assert (tmp_path / "t.md").read_text().splitlines()[-1] == "| x\\|y z | 1 |"


def test_the_model_is_laid_over_the_measured_steps() -> None:
    front = pd.DataFrame({"goal": [0.1] * 3, "batch_size": [1, 10, 100], "updates": [1000.0, 200.0, 110.0]})
    predicted = front.assign(
        updates=front["updates"] * 2, updates_low=500.0, updates_high=math.nan, model="eigenvalues i^-1"
    )
    view = view_of(run_rows(20, 1e-3, 0, rows=3, task="t"), fronts=front.assign(task="t"))
    found = replace(view.found, predictions=predicted.assign(task=view.task))
    figure = model_figure(replace(view, found=found))
    assert figure is not None
    assert "a typical factor of 2 off" in figure.caption
    assert "eigenvalues i^-1" in figure.caption
    assert model_figure(view) is None
