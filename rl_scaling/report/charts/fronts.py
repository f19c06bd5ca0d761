"""Updates against examples or frames for every goal: Pareto fronts (McCandlish et al. 2018, figure 5, eq. 2.11).

And the updates of the hardest goal as the noisy quadratic model predicts them, laid over the measured ones.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.tradeoff import tradeoff_curve
from rl_scaling.analysis.views import factor_off
from rl_scaling.estimates import MINUS, count_of, number
from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.theme import Words, dimmed, log_axis, ordered_colour, tooltips

_UPDATES = "updates to the goal"
_TO_GOAL = {"updates": _UPDATES, "examples": "{unit} to the goal"}
_HOLLOW: dict[str, Any] = {"filled": False, "fill": "var(--surface)", "strokeWidth": 2}
_ADAPTIVE = " Diamonds: runs whose batch size followed the noise scale; they are not fitted."
AT_EDGE = "best rate at the edge of its grid"
AT_START = "past the goal when first scored, not fitted"


def _guides(fronts: pd.DataFrame, tables: Tables) -> tuple[alt.Chart, alt.Chart]:
    """A thin line through all goals of one batch size, and its label at the end."""
    columns = ["batch_size", "goal", "updates", "examples"]
    ends = fronts.loc[fronts.groupby("batch_size")["goal"].idxmax()]
    lines = alt.Chart(tables.add(fronts, columns)).mark_line(
        color="var(--guide)", strokeWidth=1, strokeDash=[2, 3], opacity=0.7, tooltip=False
    )
    labels = alt.Chart(tables.add(ends, columns)).mark_text(
        color="var(--ink-soft)", fontSize=11, align="left", baseline="bottom", dx=7, dy=-4, tooltip=False
    )
    lines = lines.encode(x="updates:Q", y="examples:Q", detail="batch_size:N", order="goal:Q")
    return lines, labels.encode(x="updates:Q", y="examples:Q", text=alt.Text("batch_size:Q", format=","))


def _points(fronts: pd.DataFrame, words: Words, chosen: alt.Parameter, tables: Tables) -> list[alt.Chart]:
    """The fronts' points: filled, or hollow where something is doubtful about them."""
    at_start, at_edge = fronts["at_start"].astype(bool), fronts["at_edge"].astype(bool) & ~fronts["at_start"]
    kinds = np.select([at_start, at_edge], [AT_START, AT_EDGE], "best rate inside its grid")
    table = fronts.assign(kind=kinds)
    goals = sorted(fronts["goal"].unique())
    columns = ("goal", "batch_size", "learning_rate", "setting", "updates", "examples", "seeds", "kind")
    tooltip = tooltips(words, table, *columns, learning_rate="best learning rate", **_TO_GOAL)
    layers = []
    for part, mark in (
        (table[at_start], {"shape": "square", **_HOLLOW}),
        (table[at_edge], _HOLLOW),
        (table[~at_start & ~at_edge], {"filled": True, "opacity": 1}),
    ):
        if part.empty:
            continue
        points = alt.Chart(tables.add(part, columns)).mark_point(size=75, **mark)
        colour = ordered_colour("goal", goals, words.goal)
        shared = {"color": colour, "opacity": dimmed(chosen, 1.0), "tooltip": tooltip}
        layers.append(points.encode(x="updates:Q", y="examples:Q", **shared))
    return layers


def _curves(
    fits: pd.DataFrame, fronts: pd.DataFrame, words: Words, chosen: alt.Parameter, tables: Tables
) -> list[alt.Chart]:
    """Fitted hyperbolas and a cross at each turn, S = 2 S_min and E = 2 E_min."""
    known = fits[fits["status"] == "ok"]
    if known.empty:
        return []
    smallest, largest = fronts["batch_size"].min(), fronts["batch_size"].max()
    curve = pd.concat([tradeoff_curve(row, smallest, largest) for _, row in known.iterrows()])
    turns = known.assign(updates=2 * known["steps_min"], examples=2 * known["examples_min"])
    columns = ["goal", "updates", "examples", "critical_batch"]
    tooltip = tooltips(words, turns, "goal", "critical_batch")
    shared = {"x": "updates:Q", "y": "examples:Q", "color": "goal:O", "tooltip": tooltip}
    lines = alt.Chart(tables.add(curve, columns)).mark_line(strokeWidth=2, clip=True)
    crosses = alt.Chart(tables.add(turns, columns)).mark_point(shape="cross", size=90, filled=True, clip=True)
    return [
        lines.encode(**shared, order="updates:Q", opacity=dimmed(chosen, 0.75)),
        crosses.encode(**shared, opacity=dimmed(chosen, 1.0)),
    ]


def _adaptive_points(adaptive: pd.DataFrame, words: Words, tables: Tables) -> list[alt.Chart]:
    """Diamonds: updates and examples of adaptive runs at each goal."""
    if adaptive.empty:
        return []
    columns = ("goal", "setting", "batch_size", "updates", "examples", "gamma_observed", "gamma_predicted", "seeds")
    titles = {"setting": "adaptive batch", "batch_size": "mean batch size ({unit})"} | _TO_GOAL
    tooltip = tooltips(words, adaptive, *columns, **titles)
    marks = alt.Chart(tables.add(adaptive, columns)).mark_point(
        shape="diamond", size=110, filled=True, stroke="var(--ink)", strokeWidth=1.5, opacity=1
    )
    ends = adaptive.loc[adaptive.groupby(["setting", "learning_rate"])["goal"].idxmax()]
    labels = alt.Chart(tables.add(ends, columns)).mark_text(
        color="var(--ink-soft)", fontSize=11, align="right", baseline="top", dx=-8, dy=3, tooltip=False
    )
    place: dict[str, Any] = {"x": "updates:Q", "y": "examples:Q"}
    return [marks.encode(**place, color="goal:O", tooltip=tooltip), labels.encode(**place, text="setting:N")]


@chart("task", tables=lambda overview: {"fits": overview.fit.fits, "fronts": overview.fit.fronts})
def front_figure(view: TaskView) -> Figure | None:
    """The Pareto fronts of one task; None where no goal was reached."""
    fronts, fits, words, tables = view.own.fronts, view.own.fits, Words(view.measure), Tables()
    if fronts.empty:
        return None
    chosen = alt.selection_point(name="chosen", fields=["goal"], bind="legend")
    beside = view.own.adaptive[view.own.adaptive["goal"].isin(fronts["goal"])]
    updates, examples = ([*fronts[name], *beside[name]] for name in ("updates", "examples"))
    x = log_axis(alt.X, "updates", f"{_UPDATES} (optimiser steps, log scale)", updates)
    y = log_axis(alt.Y, "examples", f"{words.unit} to the goal ({words.log_scale})", examples)
    lines, labels = _guides(fronts, tables)
    curves = _curves(fits, fronts, words, chosen, tables)
    marks = _adaptive_points(beside, words, tables)
    layers = [lines.encode(x=x, y=y), *curves, *_points(fronts, words, chosen, tables), *marks, labels]
    return Figure(
        "pareto-front",
        f"What each batch size costs: updates against {words.unit}",
        _caption(fronts, fits, words, len(view.fixed.runs)) + (_ADAPTIVE if marks else ""),
        alt.layer(*layers).add_params(chosen),
        tables,
        True,
    )


def _caption(fronts: pd.DataFrame, fits: pd.DataFrame, words: Words, runs: int) -> str:
    fitted = int((fits["status"] == "ok").sum())
    parts = [
        "Each point is the learning rate that reached a goal first at one batch size; the numbers are batch sizes in "
        f"{words.unit} per update. Chosen from {count_of(runs, 'run')}.",
        f"Lines: (S/Smin {MINUS} 1)(E/Emin {MINUS} 1) = 1, fitted to {fitted} of {count_of(len(fits), 'goal')}; the "
        "cross marks the turn, at the critical batch size."
        if fitted
        else "No line: no goal has enough points around the turn for a fit.",
    ]
    if fronts["at_edge"].any():
        parts.append(
            "Hollow circles: the best learning rate lies at the edge of the grid, a better one may lie beyond."
        )
    if fronts["at_start"].any():
        parts.append("Hollow squares: the goal was passed before there was a smoothed score; they are not fitted.")
    return " ".join(parts)


_COLUMNS = ["batch_size", "updates", "updates_low", "updates_high"]


@chart("task")
def model_figure(view: TaskView) -> Figure | None:
    """Measured steps as points, predicted ones as a line with a band; None without predictions."""
    front, predictions = view.own.fronts, view.predictions
    if predictions is None or predictions.empty:
        return None
    goal = predictions["goal"].iloc[0]
    measured, predicted = front[front["goal"] == goal], predictions.sort_values("batch_size")
    tables = Tables()
    known = [*measured["updates"], *predicted["updates"], *predicted["updates_low"], *predicted["updates_high"]]
    x = log_axis(alt.X, "batch_size", "batch size (examples, log scale)", predicted["batch_size"])
    y = log_axis(alt.Y, "updates", "updates to the goal (log scale)", known)
    tooltip = tooltips(Words(view.measure), front, "batch_size", "updates")
    line = alt.Chart(tables.add(predicted, _COLUMNS)).encode(x=x, y=y, tooltip=tooltip)
    points = alt.Chart(tables.add(measured, ["batch_size", "updates"])).mark_point(
        size=75, filled=True, opacity=1, color="var(--critical)"
    )
    band = line.mark_area(opacity=0.16, color="var(--noise)", clip=True).encode(y="updates_low:Q", y2="updates_high:Q")
    layers = [*([band] if predicted["updates_low"].notna().any() else [])]
    layers += [line.mark_line(strokeWidth=2, color="var(--noise)"), points.encode(x=x, y=y, tooltip=tooltip)]
    caption = (
        f"Points: measured at {count_of(len(measured), 'batch size')}, goal {goal:g}. Line"
        f"{' and band' if len(layers) == 3 else ''}: the noisy quadratic model with {predictions['model'].iloc[0]}, "
        f"each batch size with its best settings."
    )
    if len(measured):
        caption += f" The points are a typical factor of {number(factor_off(measured, predicted))} off the line."
    title = "Updates to the goal: measured, and by the noisy quadratic model"
    return Figure("noisy-quadratic-model", title, caption, alt.layer(*layers), tables)
