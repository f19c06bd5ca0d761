"""Steps to a goal as the noisy quadratic model predicts them, laid over the measured ones."""

from __future__ import annotations

import altair as alt

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.views import factor_off
from rl_scaling.estimates import count_of, number
from rl_scaling.report.data import Tables
from rl_scaling.report.registry import chart
from rl_scaling.report.theme import Figure, log_axis, tooltips
from rl_scaling.report.words import Words

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
