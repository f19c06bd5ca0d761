"""The critical batch size of every goal beside the gradient noise scale."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.views import batch_sizes_by_goal
from rl_scaling.estimates import count_of
from rl_scaling.report.data import Tables
from rl_scaling.report.registry import chart
from rl_scaling.report.theme import Figure, legend, log_axis, tooltips
from rl_scaling.report.words import Words, percent

DODGE = 4  # pixels, so that the two marks of a goal do not hide each other
_NAMES = {"critical_batch": "critical batch size (fit)", "noise_scale": "simple noise scale (measured)"}
_ENDS = {"y": alt.Y("low:Q"), "y2": "high:Q"}


@chart("task")
def critical_batch_figure(view: TaskView) -> Figure | None:
    """B_crit and B_simple against the goal; None where neither is known for any goal."""
    fits, tables, words = view.own.fits, Tables(), Words(view.measure)
    table = batch_sizes_by_goal(fits)
    if table.empty:
        return None
    table["what"] = table["what"].map(_NAMES)
    columns = ["goal", "what", "value", "low", "high", "bound", "at"]
    known = pd.concat([table[name] for name in ("at", "low", "high")])
    y = log_axis(alt.Y, "at", f"{words.unit} per update (log scale)", known)
    x = _goal_axis(fits["goal"], words)
    domain = [*_NAMES.values()]
    key = legend("", entry_width=200)
    colour = alt.Color("what:N", scale=alt.Scale(domain=domain, range=["var(--critical)", "var(--noise)"]), legend=key)
    shape = alt.Shape("what:N", scale=alt.Scale(domain=domain, range=["circle", "diamond"]), legend=key)
    tooltip = tooltips(words, table, "what", "goal", "value", "low", "high", "bound")
    layers: list[alt.Chart] = []
    for place, what in enumerate(domain):
        for part, mark, ends in _marks(table[table["what"] == what], shape):
            if len(part):
                moved = mark.copy()
                moved.xOffset = DODGE * (2 * place - 1)
                drawn = alt.Chart(tables.add(part, columns), mark=moved).encode(x=x, y=y, color=colour, tooltip=tooltip)
                layers.append(drawn.encode(**ends))
    caption = (
        f"Bars: {percent(fits)} intervals. Arrows: only a bound is known (pointing up: at least "
        f"this). The noise scale of a goal is pooled over the front's runs on their way to it. "
        f"From {count_of(len(view.fixed.runs), 'run')}."
    )
    return Figure(
        "critical-batch-size", "Critical batch size beside the noise scale", caption, alt.layer(*layers), tables
    )


def _goal_axis(goals: pd.Series, words: Words) -> alt.X:
    """Goals: linear for scores; logarithmic for losses, of which the smallest is the hardest."""
    if words.direction == "min":
        return log_axis(alt.X, "goal", f"{words.goal}, log scale", goals, format=".1~e")
    return alt.X("goal:Q", title=words.goal, scale=alt.Scale(zero=False, nice=False, padding=24))


def _marks(table: pd.DataFrame, shape: alt.Shape) -> list[tuple[pd.DataFrame, alt.MarkDef, dict[str, Any]]]:
    """What is drawn: rows, mark and further encodings; an arrow points away from each one-sided bound."""
    valued = table[table["value"].notna()]
    marks = [
        (table[table["low"].notna() & table["high"].notna()], alt.MarkDef("rule", strokeWidth=2, opacity=0.55), _ENDS),
        (valued, alt.MarkDef("line", strokeWidth=1.5, opacity=0.5), {}),
        (valued, alt.MarkDef("point", size=85, filled=True, opacity=1), {"shape": shape}),
    ]
    for bound, sign, head in (("at least", -1, "triangle-up"), ("at most", 1, "triangle-down")):
        part = table[table["bound"] == bound]
        marks.append((part, alt.MarkDef("tick", thickness=2, size=14, opacity=1, orient="horizontal"), {}))
        marks.append((part, alt.MarkDef("point", shape=head, size=70, yOffset=sign * 8, filled=True, opacity=1), {}))
    return marks
