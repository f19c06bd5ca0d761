"""The charts show what the fits say: compiled by Vega-Lite itself, read back from the drawing."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis import SweepFit
from rl_scaling.analysis.tradeoff import tradeoff_curve
from rl_scaling.analysis.views import batch_sizes_by_goal
from rl_scaling.report.charts.critical_batch import critical_batch_figure
from rl_scaling.report.charts.fronts import front_figure
from rl_scaling.report.figures import Figure, rows_of
from rl_scaling.report.page import specification
from rl_scaling.report.section import Section, TaskPart, task_parts
from rl_scaling.report.theme import (
    LONGEST_RAMP,
    colour_variables,
    log_ticks,
    ramp,
    with_plain_colours,
)
from tests.report.synthetic import INF, NAN, critical_batch, known_fit, run_rows, steps_min, sweep_rows, view_of

GOALS = [2, 5, 10, 20, 40]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return sweep_rows((20, 80, 320, 1280), rows=40, frames=3_000_000)


@pytest.fixture(scope="module")
def fit(runs: pd.DataFrame) -> SweepFit:
    return known_fit(runs, GOALS)


@pytest.fixture(scope="module")
def part(runs: pd.DataFrame, fit: SweepFit) -> TaskPart:
    return task_parts(Section(heading="Synthetic", runs=runs, fit=fit))[0]


def drawing(figure: Figure) -> ElementTree.Element:
    """The figure as an SVG tree."""
    spec = specification(figure) | {"width": 600}
    spec["datasets"] = {name: rows_of(columns) for name, columns in figure.tables.items()}
    return ElementTree.fromstring(vl_convert.vegalite_to_svg(with_plain_colours(json.dumps(spec))))


def marks(figure: Figure, role: str) -> list[ElementTree.Element]:
    """The paths of all marks of one kind ("mark-symbol", "mark-line"), not those of legends."""
    groups = [g for g in drawing(figure).iter(f"{SVG}g") if f"{role} role-mark" in g.get("class", "")]
    return [path for group in groups for path in group.iter(f"{SVG}path")]


def named(part: TaskPart, name: str) -> Figure:
    return next(figure for figure in part.figures if figure.name == name)


def test_a_whole_sweep_gets_every_chart(part: TaskPart) -> None:
    assert [figure.name for figure in part.figures] == [
        "pareto-front",
        "critical-batch-size",
        "noise-scale-over-frames",
        "learning-curves-frames",
        "learning-curves-updates",
        "best-learning-rates",
        "learning-rates-to-goal",
        "learning-rates-final-score",
    ]
    for figure in part.figures:
        assert figure.title
        assert re.search(r"\d+ runs", figure.caption), figure.name


def test_every_chart_has_named_axes_with_tooltips(part: TaskPart) -> None:
    for figure in part.figures:
        text = json.dumps(specification(figure))
        titles = re.findall(r'"title": "([^"]+)"', text)
        assert any("frames" in t or "updates" in t or "score" in t or "rate" in t for t in titles), figure.name
        assert '"tooltip": [' in text, figure.name


def test_the_front_has_a_point_for_every_row_and_a_line_for_every_fit(part: TaskPart, fit: SweepFit) -> None:
    figure = named(part, "pareto-front")
    fitted = int((fit.fits["status"] == "ok").sum())
    assert fitted >= 2
    assert len(marks(figure, "mark-symbol")) == len(fit.fronts) + fitted  # a cross at each turn
    assert len(marks(figure, "mark-line")) == fitted + fit.fronts["batch_size"].nunique()


def test_points_whose_best_rate_may_lie_elsewhere_are_hollow(part: TaskPart, fit: SweepFit) -> None:
    doubtful = fit.fronts.assign(at_edge=fit.fronts["batch_size"] == 20, at_start=fit.fronts["goal"] == 2)
    found = replace(part.view.found, fit=replace(fit, fronts=doubtful))
    figure = front_figure(replace(part.view, found=found))
    assert figure is not None
    hollow = [path for path in marks(figure, "mark-symbol") if path.get("fill") == "#ffffff"]
    assert len(hollow) == int((doubtful["at_edge"] | doubtful["at_start"]).sum())
    assert "Hollow circles" in figure.caption
    assert "Hollow squares" in figure.caption
    assert "24 runs" in figure.caption


@given(st.floats(1, 1e6), st.floats(1, 1e5), st.floats(2, 1e3), st.floats(1, 1e4))
def test_the_fitted_curve_is_the_hyperbola(turn: float, steps: float, smallest: float, factor: float) -> None:
    fit = pd.Series({"goal": 1.0, "critical_batch": turn, "steps_min": steps, "examples_min": steps * turn})
    curve = tradeoff_curve(fit, smallest, smallest * factor)
    product = (curve["updates"] / steps - 1) * (curve["examples"] / (steps * turn) - 1)
    assert product.to_numpy() == pytest.approx(1.0, rel=1e-4)
    batch = curve["examples"] / curve["updates"]
    assert batch.min() == pytest.approx(smallest / 2)
    assert batch.max() == pytest.approx(2 * smallest * factor)


def test_the_drawn_fit_passes_through_the_known_points(part: TaskPart, fit: SweepFit) -> None:
    """S = S_min (1 + B_crit / B) at each batch size, as the runs were made."""
    for _, row in fit.fits[fit.fits["status"] == "ok"].iterrows():
        curve = tradeoff_curve(row, 20, 1280)
        batch = curve["examples"] / curve["updates"]
        goal = float(row["goal"])
        expected = steps_min(goal) * (1 + critical_batch(goal) / batch)
        assert curve["updates"].to_numpy() == pytest.approx(np.asarray(expected))


def _fits(**columns: list[float]) -> pd.DataFrame:
    names = [f"{q}{end}" for q in ("critical_batch", "noise_scale") for end in ("", "_low", "_high")]
    size = len(next(iter(columns.values())))
    table = pd.DataFrame({name: [NAN] * size for name in names} | columns)
    return table.assign(goal=range(1, size + 1), confidence=0.9, task="t", status="ok", unit="frames", quantity="score")


def test_bounds_become_arrows_and_the_unknown_nothing() -> None:
    fits = _fits(
        critical_batch=[10.0, NAN, NAN, NAN, NAN, 0.0],
        critical_batch_low=[5.0, 7.0, 0.0, NAN, 0.0, -1.0],
        critical_batch_high=[20.0, INF, 9.0, NAN, INF, 0.0],
    )
    table = batch_sizes_by_goal(fits)
    assert table["goal"].tolist() == [1, 2, 3]
    assert table["bound"].tolist() == ["interval", "at least", "at most"]
    assert table["at"].tolist() == [10.0, 7.0, 9.0]
    figure = critical_batch_figure(view_of(run_rows(20, 1e-3, 0, rows=3, task="t"), fits=fits))
    assert figure is not None
    assert len(marks(figure, "mark-symbol")) == 3
    assert len(marks(figure, "mark-rect")) == 2
    assert "90\N{NO-BREAK SPACE}% intervals" in figure.caption


def test_nothing_known_draws_nothing() -> None:
    fits = _fits(critical_batch=[NAN], noise_scale_high=[INF])
    assert critical_batch_figure(view_of(run_rows(20, 1e-3, 0, rows=3, task="t"), fits=fits)) is None


def test_best_runs_are_strong_and_others_faint(part: TaskPart, runs: pd.DataFrame) -> None:
    lines = marks(named(part, "learning-curves-frames"), "mark-line")
    opacities = [float(path.get("opacity", path.get("stroke-opacity", "1"))) for path in lines]
    assert len(lines) == runs["run_id"].nunique()
    assert sum(opacity == 1 for opacity in opacities) == 4 * 2  # batch sizes, seeds at the best rate


def test_learning_rates_start_with_a_goal_and_have_a_line_for_each_batch_size(part: TaskPart, fit: SweepFit) -> None:
    figure = named(part, "learning-rates-to-goal")
    rates = fit.learning_rates.dropna(subset=["updates"])
    start = next(p["value"] for p in specification(figure)["params"] if p["name"] == "goal")
    counts = rates.groupby("goal")["batch_size"].nunique()
    assert counts[start] == counts.max()
    assert start == counts[counts == counts.max()].index.max()
    assert len(marks(figure, "mark-line")) == counts.max()
    assert len(marks(figure, "mark-symbol")) == int((rates["goal"] == start).sum())


def test_unresolved_noise_is_drawn_as_lower_bounds() -> None:
    records = run_rows(80, 1e-3, 0, rows=40)
    records["noise_scale"] = NAN
    records["noise_scale_high"] = INF
    records["grad_sq_norm"] = -0.01
    part = task_parts(Section(heading="x", runs=records, fit=known_fit(records, [])))[0]
    figure = named(part, "noise-scale-over-frames")
    assert marks(figure, "mark-line") == []
    triangles = [path for path in marks(figure, "mark-symbol") if float(path.get("opacity", "1")) > 0]
    assert len(triangles) == 16 + 12  # of the run, and of the bins of the pooled estimate
    assert "In 1 run it was never resolved" in figure.caption


@given(st.floats(1e-8, 1e8), st.floats(1.2, 1e9))
def test_log_ticks_are_round_few_and_inside(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 12
    assert all(f"{tick:.0e}"[0] in "12357" and float(f"{tick:.0e}") == tick for tick in ticks)
    assert ticks or ratio < 2


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [2, 5, LONGEST_RAMP])
def test_ramps_keep_their_order_in_grey_and_stand_out(size: int, dark: bool) -> None:
    """Order by lightness survives every kind of colour blindness; WCAG asks marks for a contrast of 3, lines less."""
    values = dict(pair.split(":") for pair in colour_variables(dark=dark).strip(";").split(";"))
    colours = [_luminance(values[name.removeprefix("var(").rstrip(")")]) for name in ramp(size)]
    assert colours == sorted(colours)
    surface = _luminance(values["--surface"])
    contrast = [(max(c, surface) + 0.05) / (min(c, surface) + 0.05) for c in colours]
    assert min(contrast) > 2.3


@pytest.mark.parametrize("count", [1, 7, LONGEST_RAMP, 30])
def test_any_number_of_colours(count: int) -> None:
    colours = ramp(count)
    assert len(colours) == count
    assert len(set(colours)) == min(count, LONGEST_RAMP)
    assert "var(" not in with_plain_colours(" ".join(colours))
    assert math.isclose(len(with_plain_colours(colours[0])), 7)
