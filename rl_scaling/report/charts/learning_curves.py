"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.views import Series, thin
from rl_scaling.estimates import count_of
from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.theme import Words, count_axis, dimmed, log_axis, ordered_colour, tooltips

HOVER_POINTS = 48
MANY_LINES = 12
_MUCH_LONGER = 100
_OF_RUN = ("batch_size", "learning_rate", "setting", "seed", "state")
_RUN_COLUMNS = ["run", "batch_size", "learning_rate", "setting", "seed", "state", "best"]


def _described(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.assign(state=np.where(runs["note"] == "", runs["status"], runs["status"] + ": " + runs["note"]))


def batch_colour(sizes: pd.Series, words: Words) -> alt.Color:
    """Colour for the batch sizes in a column."""
    return ordered_colour("batch_size", sorted(sizes.unique()), f"batch size ({words.unit} per update)")


def run_lines(
    series: Series,
    words: Words,
    field: str,
    x: alt.X,
    y: alt.Y,
    chosen: alt.Parameter,
    tables: Tables,
    *,
    strength: float = 1.0,
) -> list[alt.Chart]:
    """One line per run: the best learning rate of each batch size strong, the others faint, and points to hover over.

    Picking a batch size in the legend brings its faint runs forward. `strength` is the opacity of the strong lines.
    """
    table = alt.LookupData(tables.add(_described(series.runs), _RUN_COLUMNS), "run", _RUN_COLUMNS[1:])
    curves = series.curves.merge(series.runs[["run", "batch_size", "best"]], on="run")
    known = curves[curves.groupby("run")[field].transform("count") > 0]  # a gap within a line stays a gap
    best = known[known["best"]]
    points = [part.iloc[thin(len(part), HOVER_POINTS)] for _, part in best.dropna(subset=[field]).groupby("run")]
    colour = batch_colour(series.runs["batch_size"], words)
    faint = alt.when(chosen, empty=False).then(alt.value(0.6)).when(chosen).then(alt.value(0.22))
    strong = dimmed(chosen, strength, 0.08)
    width = 2.0 if len(points) <= MANY_LINES else 1.4
    layers = [
        (known[~known["best"]], alt.MarkDef("line", strokeWidth=1.1, clip=True), faint.otherwise(alt.value(0.04)), ()),
        (best, alt.MarkDef("line", strokeWidth=width, clip=True), strong, ()),
        (
            pd.concat(points or [best.head(0)]),
            alt.MarkDef("point", size=140, filled=True),
            alt.value(0),
            ("examples", "updates", field),
        ),
    ]
    return [
        alt.Chart(tables.add(part, ["run", "updates", "examples", field]), mark=mark)
        .transform_lookup("run", table)
        .encode(
            x=x,
            y=y,
            detail="run:N",
            color=colour,
            opacity=opacity,
            tooltip=tooltips(words, series.runs, *_OF_RUN, *more),
        )
        for part, mark, opacity, more in layers
        if len(part)
    ]


@chart("task")
def curve_figures(view: TaskView) -> list[Figure]:
    """Smoothed score, or loss, against examples and against updates; empty where no run has one."""
    series, words = view.fixed, Words(view.measure)
    drawn = series.curves.dropna(subset=["smoothed"])
    if drawn.empty or not view.found.curves:
        return []
    runs = drawn["run"].nunique()
    smoothed = f"; scores smoothed over {view.found.horizon:g} finished episodes" if words.measure.over_episodes else ""
    caption = (
        f"{count_of(runs, 'run')}{smoothed}. Strong lines: the best learning rate of each batch size, faint lines: the "
        "others."
    )
    unseen = series.runs["run"].nunique() - runs
    if unseen:
        why = "with too few finished episodes" if smoothed else f"without a {words.quantity}"
        caption += f" Not drawn: {count_of(unseen, 'run')} {why} or without room here."
    axes = {
        words.unit: _examples_axis(series.runs["examples"], words),
        "updates": log_axis(alt.X, "updates", "optimiser updates (log scale)", drawn["updates"]),
    }
    return [_curve_figure(view, words, against, x, caption) for against, x in axes.items()]


def _examples_axis(totals: pd.Series, words: Words) -> alt.X:
    """Linear, unless the runs' lengths differ so much that the short ones would vanish."""
    if totals.max() > _MUCH_LONGER * totals.min():
        return log_axis(alt.X, "examples", f"{words.counted}, log scale", [totals.min() / 100, totals.max()])
    return count_axis(alt.X, "examples", words.counted)


def _curve_figure(view: TaskView, words: Words, against: str, x: alt.X, caption: str) -> Figure:
    series, goals = view.fixed, sorted(view.own.fits["goal"])
    y = value_axis("smoothed", words.curve, series.curves["smoothed"], words)
    chosen = alt.selection_point(name="chosen", fields=["batch_size"], bind="legend")
    tables = Tables()
    layers = [
        *_goal_rules(series.curves, goals, words, tables),
        *run_lines(series, words, "smoothed", x, y, chosen, tables),
    ]
    drawing = alt.layer(*layers).add_params(chosen)
    title = f"Learning curves: {words.quantity} against {against}"
    return Figure(f"learning-curves-{against}", title, caption, drawing, tables)


def value_axis(field: str, title: str, values: pd.Series, words: Words) -> alt.Y:
    """An axis for what goals are about: linear for scores, logarithmic for losses, which have no natural zero."""
    if words.direction == "min":
        return log_axis(alt.Y, field, f"{title} (log scale)", values, format=".1~e")
    return alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False))


def _goal_rules(drawn: pd.DataFrame, goals: Sequence[float], words: Words, tables: Tables) -> list[alt.Chart]:
    seen = [g for g in goals if drawn["smoothed"].min() <= g <= drawn["smoothed"].max()]
    if not seen:
        return []
    data = tables.add(pd.DataFrame({"goal": seen}), ["goal"])
    rule = alt.Chart(data).mark_rule(color="var(--guide)", strokeDash=[2, 3], opacity=0.7)
    return [rule.encode(y="goal:Q", tooltip=tooltips(words, drawn, "goal"))]
