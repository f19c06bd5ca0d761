"""Learning curves and learning-rate curves."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.report.data import Tables
from rl_scaling.report.numbers import count_of
from rl_scaling.report.series import Series, thin
from rl_scaling.report.theme import Figure, count_axis, log_axis, ordered_colour

HOVER_POINTS = 48
BATCH_LEGEND = "batch size (frames per update)"
MANY_LINES = 12
_RUN_COLUMNS = ["run", "batch_size", "learning_rate", "seed", "state", "best"]


def _described(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.assign(state=np.where(runs["note"] == "", runs["status"], runs["status"] + ": " + runs["note"]))


def _tooltip(*more: alt.Tooltip) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("batch_size:Q", title="batch size (frames)", format=","),
        alt.Tooltip("learning_rate:Q", title="learning rate", format=".3~g"),
        alt.Tooltip("seed:Q", title="seed"),
        alt.Tooltip("state:N", title="run"),
        *more,
    ]


def run_lines(
    series: Series,
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
    colour = ordered_colour("batch_size", sorted(series.runs["batch_size"].unique()), BATCH_LEGEND)
    faint = alt.when(chosen, empty=False).then(alt.value(0.6)).when(chosen).then(alt.value(0.22))
    strong = alt.when(chosen).then(alt.value(strength)).otherwise(alt.value(0.08))
    value = alt.Tooltip(f"{field}:Q", title=_WORDS[field], format=",.3~r")
    width = 2.0 if len(points) <= MANY_LINES else 1.4
    layers = [
        (known[~known["best"]], alt.MarkDef("line", strokeWidth=1.1, clip=True), faint.otherwise(alt.value(0.04)), ()),
        (best, alt.MarkDef("line", strokeWidth=width, clip=True), strong, ()),
        (_together(points, best), alt.MarkDef("point", size=140, filled=True), alt.value(0), (*_PROGRESS, value)),
    ]
    return [
        alt.Chart(tables.add(part, ["run", "updates", "frames", field]), mark=mark)
        .transform_lookup("run", table)
        .encode(x=x, y=y, detail="run:N", color=colour, opacity=opacity, tooltip=_tooltip(*more))
        for part, mark, opacity, more in layers
        if len(part)
    ]


def _together(parts: list[pd.DataFrame], empty: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts) if parts else empty.head(0)


_PROGRESS = (
    alt.Tooltip("frames:Q", title="frames", format=",.4~r"),
    alt.Tooltip("updates:Q", title="updates", format=",.4~r"),
)
_WORDS = {"smoothed": "smoothed score", "noise_scale": "noise scale (frames)"}


def curve_figures(series: Series, goals: Sequence[float], horizon: float) -> list[Figure]:
    """Smoothed score against frames and against updates; empty where no run has a smoothed score."""
    drawn = series.curves.dropna(subset=["smoothed"])
    if drawn.empty:
        return []
    runs = drawn["run"].nunique()
    caption = (
        f"{count_of(runs, 'run')}; scores smoothed over {horizon:g} finished episodes. Strong lines: the best learning "
        "rate of each batch size, faint lines: the others."
    )
    unseen = series.runs["run"].nunique() - runs
    if unseen:
        caption += f" Not drawn: {count_of(unseen, 'run')} with too few finished episodes or without room here."
    axes = {
        "frames": count_axis(alt.X, "frames", "frames (agent steps)"),
        "updates": log_axis(alt.X, "updates", "optimiser updates (log scale)", drawn["updates"]),
    }
    return [_curve_figure(series, goals, field, x, caption) for field, x in axes.items()]


def _curve_figure(series: Series, goals: Sequence[float], field: str, x: alt.X, caption: str) -> Figure:
    y = alt.Y("smoothed:Q", title="smoothed score", scale=alt.Scale(zero=False))
    chosen = alt.selection_point(name="chosen", fields=["batch_size"], bind="legend")
    tables = Tables()
    layers = [*_goal_rules(series.curves, goals, tables), *run_lines(series, "smoothed", x, y, chosen, tables)]
    chart = alt.layer(*layers).add_params(chosen)
    return Figure(f"learning-curves-{field}", f"Learning curves: score against {field}", caption, chart, tables)


def _goal_rules(drawn: pd.DataFrame, goals: Sequence[float], tables: Tables) -> list[alt.Chart]:
    seen = [g for g in goals if drawn["smoothed"].min() <= g <= drawn["smoothed"].max()]
    if not seen:
        return []
    data = tables.add(pd.DataFrame({"goal": seen}), ["goal"])
    rule = alt.Chart(data).mark_rule(color="var(--guide)", strokeDash=[2, 3], opacity=0.7)
    return [rule.encode(y="goal:Q", tooltip=[alt.Tooltip("goal:Q", title="goal (score)")])]


def _goal_to_show(table: pd.DataFrame) -> float:
    """The highest goal among those that the largest number of batch sizes reached."""
    reached = table.dropna(subset=["updates"]).groupby("goal")["batch_size"].nunique()
    return float(reached[reached == reached.max()].index.max())


def _rate_lines(table: pd.DataFrame, y: alt.Y, tooltip: list[alt.Tooltip], tables: Tables) -> alt.Chart:
    """One line per batch size over the learning rates in `table`."""
    chosen = alt.selection_point(name="chosen", fields=["batch_size"], bind="legend")
    x = log_axis(alt.X, "learning_rate", "learning rate (log scale)", table["learning_rate"], format=".1~e")
    return (
        alt.Chart(tables.add(table, table.columns.tolist()))
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=55, filled=True))
        .encode(
            x=x,
            y=y,
            color=ordered_colour("batch_size", sorted(table["batch_size"].unique()), BATCH_LEGEND),
            opacity=alt.when(chosen).then(alt.value(1.0)).otherwise(alt.value(0.1)),
            tooltip=tooltip,
        )
        .add_params(chosen)
    )


def _rate_tooltip(*more: alt.Tooltip) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("batch_size:Q", title="batch size (frames)", format=","),
        alt.Tooltip("learning_rate:Q", title="learning rate", format=".3~g"),
        *more,
    ]


def rate_to_goal_figure(learning_rates: pd.DataFrame, runs: int) -> Figure | None:
    """Updates to a goal against the learning rate, with a choice of goals; None where no goal was reached."""
    reached = learning_rates.dropna(subset=["updates"])
    if reached.empty:
        return None
    start = _goal_to_show(reached)
    goals = sorted(float(g) for g in reached["goal"].unique())
    choice = alt.param(name="goal", value=start, bind=alt.binding_select(options=goals, name="goal (score) "))
    tables = Tables()
    y = log_axis(alt.Y, "updates", "updates to the goal (log scale)", reached["updates"])
    tooltip = _rate_tooltip(
        alt.Tooltip("goal:Q", title="goal (score)"), alt.Tooltip("updates:Q", title="updates to it", format=",.4~r")
    )
    table = reached[["goal", "batch_size", "learning_rate", "updates"]]
    chart = _rate_lines(table, y, tooltip, tables).transform_filter("datum.goal == goal").add_params(choice)
    caption = (
        f"Lower is faster; a lowest point at the end of a line asks for a wider grid. The chart starts with the goal "
        f"{start:g}. Rates without a point did not reach the goal. From {count_of(runs, 'run')}."
    )
    return Figure("learning-rates-to-goal", "Learning rates: updates to a goal", caption, chart, tables)


def final_score_figure(runs: pd.DataFrame) -> Figure | None:
    """Smoothed score at the end of the runs against the learning rate; None where no run has one."""
    scored = runs.dropna(subset=["final_score"])
    if scored.empty:
        return None
    grouped = scored.groupby(["batch_size", "learning_rate"], as_index=False)
    means = grouped.agg(score=("final_score", "mean"), seeds=("final_score", "size"), frames=("frames", "mean"))
    tooltip = _rate_tooltip(
        alt.Tooltip("score:Q", title="final score", format=",.3~r"),
        alt.Tooltip("seeds:Q", title="runs averaged"),
        alt.Tooltip("frames:Q", title="after frames", format=",.3~r"),
    )
    y = alt.Y("score:Q", title="smoothed score at the end", scale=alt.Scale(zero=False))
    tables = Tables()
    caption = f"Mean over seeds of {count_of(len(scored), 'run')}; runs that stopped early count with their last score."
    chart = _rate_lines(means, y, tooltip, tables)
    return Figure("learning-rates-final-score", "Learning rates: score at the end", caption, chart, tables)
