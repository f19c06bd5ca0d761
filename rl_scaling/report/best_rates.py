"""The best learning rate of each batch size, beside A.3 of McCandlish et al. 2018."""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.analysis import rate_curve
from rl_scaling.analysis.best_rate import FEWEST_SIZES
from rl_scaling.report.data import Tables
from rl_scaling.report.fronts import setting_tooltip
from rl_scaling.report.numbers import count_of, interval, number
from rl_scaling.report.theme import Figure, log_axis, ordered_colour
from rl_scaling.report.words import Words, words_of

CURVE_POINTS = 40
_TOO_SCATTERED = math.log(2)
_ADAPTIVE_OPTIMISERS = ("adam", "rmsprop", "a2c", "ppo")


def _power(task: str) -> float:
    """Alpha of A.3 as in the grids of sweeps: 1 for SGD and momentum, 0.5 for what divides by second moments."""
    return 0.5 if any(name in task.lower() for name in _ADAPTIVE_OPTIMISERS) else 1.0


def best_rate_figure(front: pd.DataFrame, runs: pd.DataFrame) -> Figure | None:
    """Best learning rate against batch size for each goal, with the curve of the hardest goal; None without a front.

    Args:
        front: the task's rows of `SweepFit.fronts`.
        runs: the task's rows of `Series.runs`.
    """
    if front.empty:
        return None
    words, tables = words_of(runs), Tables()
    goals = sorted(front["goal"].unique(), reverse=words.direction == "min")
    x = log_axis(alt.X, "batch_size", f"batch size ({words.unit} per update, log scale)", front["batch_size"])
    y = log_axis(alt.Y, "learning_rate", "best learning rate (log scale)", front["learning_rate"], format=".1~e")
    tooltip = [
        alt.Tooltip("goal:Q", title=words.goal),
        alt.Tooltip("batch_size:Q", title=f"batch size ({words.unit})", format=","),
        alt.Tooltip("learning_rate:Q", title="best learning rate", format=".3~g"),
        *setting_tooltip(front),
        alt.Tooltip("at_edge:N", title="at the edge of its grid"),
    ]
    columns = ["goal", "batch_size", "learning_rate", "setting", "at_edge"]
    base = alt.Chart(tables.add(front, columns)).encode(
        x=x, y=y, color=ordered_colour("goal", goals, words.goal), tooltip=tooltip
    )
    layers = [base.mark_line(strokeWidth=1.5, opacity=0.7).encode(order="batch_size:Q")]
    curve, said = _fitted(front, words, tables)
    layers += [*curve, base.mark_point(size=60, filled=True, opacity=1)]
    edges = int(front["at_edge"].sum())
    caption = f"The learning rate that reached each goal first, from {count_of(len(runs), 'run')}. {said}" + (
        f" {count_of(edges, 'point')} at the edge of the grid: the best rate may lie beyond." if edges else ""
    )
    return Figure("best-learning-rates", "Best learning rate against batch size", caption, alt.layer(*layers), tables)


def _fitted(front: pd.DataFrame, words: Words, tables: Tables) -> tuple[list[alt.Chart], str]:
    """The curve of the hardest goal that three batch sizes reached, and the words about it."""
    sizes = front.groupby("goal")["batch_size"].nunique()
    enough = sizes.index[sizes >= FEWEST_SIZES]
    if not len(enough):
        return [], ""
    goal = float(enough.max() if words.direction == "max" else enough.min())
    chosen, power = front[front["goal"] == goal], _power(str(front["task"].iloc[0]))
    curve = rate_curve(chosen["batch_size"], chosen["learning_rate"], power)
    if curve is None:
        return [], ""
    if curve.scatter > _TOO_SCATTERED:
        return [], f"The points of the goal {goal:g} follow no curve of A.3 to within a factor of 2."
    smallest, largest = float(chosen["batch_size"].min()), float(chosen["batch_size"].max())
    at = np.geomspace(smallest, largest, CURVE_POINTS)
    line = pd.DataFrame({"batch_size": at, "learning_rate": curve(at)})
    drawn = alt.Chart(tables.add(line, ["batch_size", "learning_rate"])).mark_line(
        color="var(--ink)", strokeWidth=1.6, strokeDash=[6, 4], tooltip=False
    )
    exponent = "" if power == 1 else f"^{power:g}"
    ends = interval(curve.turn_low, curve.turn_high, 2)
    bend = f"it bends at {number(curve.turn, 2)} ({ends}) {words.unit}"
    if curve.turn == math.inf:
        bend = "no bend is seen up to the largest batch size"
    elif curve.turn == 0:
        bend = "the best rate does not rise with the batch size"
    return [drawn.encode(x="batch_size:Q", y="learning_rate:Q")], (
        f"Dashed: rate = limit / (1 + turn / B){exponent} (A.3) for the goal {goal:g}; {bend}."
    )
