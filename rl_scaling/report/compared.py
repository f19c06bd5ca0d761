"""Several algorithms on one environment: the goals they have in common, in one table and one chart."""

from __future__ import annotations

import altair as alt
import pandas as pd

from rl_scaling.analysis import SweepFit
from rl_scaling.report.data import Tables
from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.numbers import number
from rl_scaling.report.tables import with_interval
from rl_scaling.report.theme import Figure, legend, log_axis, series_colours
from rl_scaling.report.words import Words, words_of


def _in_common(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Of each environment that several tasks are about, the rows of goals that at least two of them have."""
    named = rows.assign(environment=rows["task"].str.split(" ").str[0])
    shared = named[named.groupby(["environment", "goal"])["task"].transform("nunique") > 1]
    return [part for _, part in shared.groupby("environment")]


def compared_table(fits: pd.DataFrame) -> Html | None:
    """Updates, frames and batch sizes of every goal that several tasks of one environment reached; None without such.

    Args:
        fits: `SweepFit.fits` of all tasks.
    """
    parts = _in_common(fits[fits["status"] != "not reached"])
    if not parts:
        return None
    rows = [_row(fit) for part in parts for _, fit in part.sort_values(["goal", "task"]).iterrows()]
    unit = words_of(fits).unit
    heads = [
        "Goal",
        "Task",
        join(["S", tag("sub", "min"), " (updates)"]),
        join(["E", tag("sub", "min"), f" ({unit})"]),
        join(["B", tag("sub", "crit"), f" ({unit} per update)"]),
        join(["B", tag("sub", "simple"), f" ({unit} per update)"]),
    ]
    return table(heads, rows, words=[1])


def _row(fit: pd.Series) -> list[object]:
    return [
        f"{fit['goal']:g}",
        fit["task"],
        number(fit["steps_min"]),
        number(fit["examples_min"]),
        with_interval(fit["critical_batch"], fit["critical_batch_low"], fit["critical_batch_high"]),
        with_interval(fit["noise_scale"], fit["noise_scale_low"], fit["noise_scale_high"]),
    ]


def compared_figures(fit: SweepFit) -> dict[str, Figure]:
    """For each environment with several tasks, their fronts in one chart, under the last of the tasks."""
    figures = {}
    for fronts in _in_common(fit.fronts):
        words = words_of(fit.fits[fit.fits["task"] == fronts["task"].iloc[0]])
        figures[str(fronts["task"].max())] = _figure(fronts, words)
    return figures


def _figure(fronts: pd.DataFrame, words: Words) -> Figure:
    tables, unit = Tables(), words.unit
    tasks, goals = sorted(fronts["task"].unique()), sorted(float(goal) for goal in fronts["goal"].unique())
    start = _goal_to_show(fronts, words)
    choice = alt.param(name="goal", value=start, bind=alt.binding_select(options=goals, name=f"{words.goal} "))
    key = legend("", entry_width=420)
    data = tables.add(fronts, ["task", "goal", "batch_size", "learning_rate", "updates", "examples"])
    chart = alt.Chart(data).encode(
        x=log_axis(alt.X, "updates", "updates to the goal (optimiser steps, log scale)", fronts["updates"]),
        y=log_axis(alt.Y, "examples", f"{unit} to the goal ({words.log_scale})", fronts["examples"]),
        color=alt.Color("task:N", scale=alt.Scale(domain=tasks, range=series_colours(len(tasks))), legend=key),
        tooltip=[
            alt.Tooltip("task:N"),
            alt.Tooltip("goal:Q"),
            alt.Tooltip("batch_size:Q", title=f"batch size ({unit})", format=","),
            alt.Tooltip("learning_rate:Q", title="best learning rate", format=".3~g"),
            alt.Tooltip("updates:Q", format=",.4~r"),
            alt.Tooltip("examples:Q", title=unit, format=",.4~r"),
        ],
    )
    lines = chart.mark_line(strokeWidth=1.8).encode(order="batch_size:Q").transform_filter("datum.goal == goal")
    points = chart.mark_point(size=60, filled=True, opacity=1).transform_filter("datum.goal == goal")
    return Figure(
        "algorithms",
        "The same goal, by algorithm",
        f"Points are batch sizes at their best learning rates, for one goal; the chart starts with {start:g}. "
        f"{unit.capitalize()} are counted once, however often an algorithm uses them.",
        alt.layer(lines, points).add_params(choice),
        tables,
        True,
    )


def _goal_to_show(fronts: pd.DataFrame, words: Words) -> float:
    """Of the goals that most tasks reached, the one with most points; of several, the hardest."""
    counts = fronts.groupby("goal").agg(tasks=("task", "nunique"), points=("task", "size"))
    hardness = counts.index if words.direction == "max" else -counts.index
    best = counts.assign(hardness=hardness).sort_values(["tasks", "points", "hardness"])
    return float(best.index[-1])
