"""Noise scales of weights that were kept, as a chart and as a table of the page."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import vl_convert

from rl_scaling.analysis.frozen import COLUMNS
from rl_scaling.estimates import Estimate
from rl_scaling.report.figures import Figure, rows_of
from rl_scaling.report.page import specification
from rl_scaling.report.section import Section, TaskPart, section_html, task_parts
from rl_scaling.report.tables import frozen_table
from rl_scaling.report.theme import with_plain_colours
from tests.report.synthetic import known_fit, sweep_rows

NAME = "noise-scale-of-kept-weights"


def frozen_rows(task: str) -> pd.DataFrame:
    """At the start with everything known, at a goal with B_simple alone, and later with a bound."""
    unknown, bound = Estimate(math.nan, math.nan, math.nan), Estimate(math.nan, 700.0, math.inf)
    rows = []
    for frames, place, simple, noise in (
        (0, "at the start", Estimate(90.0, 70.0, 130.0), Estimate(60.0, 30.0, 200.0)),
        (200_000, "at 5", Estimate(400.0, 300.0, 600.0), bound),
        (900_000, "after 900,000 frames", bound, unknown),
    ):
        row = {"task": task, "place": place, "of_frames": frames, "seed": 0, "frames": 40_000, "design_effect": 2.5}
        row |= simple.columns("noise_scale") | noise.columns("hessian_noise_scale") | {"confidence": 0.95}
        for part in ("policy", "value", "entropy"):
            row |= bound.columns(f"{part}_noise_scale")
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


@pytest.fixture(scope="module")
def section() -> Section:
    runs = sweep_rows((20, 80, 320, 1280), rows=40, frames=3_000_000)
    fit = known_fit(runs, [2, 5, 10])
    return Section(heading="Synthetic", runs=runs, fit=replace(fit, frozen=frozen_rows(str(runs["task"].iloc[0]))))


@pytest.fixture(scope="module")
def part(section: Section) -> TaskPart:
    return task_parts(section)[0]


def test_the_chart_shows_values_intervals_and_bounds(part: TaskPart) -> None:
    (figure,) = [figure for figure in part.figures if figure.name == NAME]
    spec = specification(figure) | {"width": 600}
    spec["datasets"] = {name: rows_of(columns) for name, columns in figure.tables.items()}
    drawn = vl_convert.vegalite_to_svg(with_plain_colours(json.dumps(spec)))
    assert "B_noise, weights kept" in drawn
    shown = [rows_of(columns) for columns in figure.tables.values()]
    values = sorted(row["value"] for rows in shown for row in rows if row.get("setting") and row.get("value"))
    assert values == [60, 90, 400]
    bounds = [row for rows in shown for row in rows if row.get("low") == 700]
    assert {row["examples"] for row in bounds} == {200_000, 900_000}
    assert "3 measurements" in figure.caption


def test_the_table_says_what_is_known(section: Section) -> None:
    text = str(frozen_table(section.fit.frozen))
    for words in ("at the start", "90 (70–130)", "at least 700", "60 (30–200)", "2.5"):
        assert words in text


def test_they_are_on_the_page_of_their_task(section: Section, part: TaskPart) -> None:
    def draw(figure: Figure, command: str) -> object:
        return figure.name

    page = str(section_html(section, "synthetic", [part], draw))  # pyright: ignore[reportArgumentType]
    assert "Noise scale with the weights kept" in page
    plain = replace(section, fit=replace(section.fit, frozen=section.fit.frozen.head(0)))
    (without,) = task_parts(plain)
    assert NAME not in [figure.name for figure in without.figures]
    assert "Noise scale with the weights kept" not in str(section_html(plain, "s", [without], draw))  # pyright: ignore[reportArgumentType]
