"""Steps to a goal as the noisy quadratic model predicts them, laid over the measured ones."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.report.data import Tables
from rl_scaling.report.numbers import count_of, number
from rl_scaling.report.theme import Figure, log_axis

_COLUMNS = ["batch_size", "updates", "updates_low", "updates_high"]


def model_figure(front: pd.DataFrame, predictions: pd.DataFrame | None) -> Figure | None:
    """Measured steps as points, predicted ones as a line with a band; None without predictions.

    Args:
        front: the task's rows of `SweepFit.fronts`.
        predictions: the task's rows of `Section.predictions`, of one goal.
    """
    if predictions is None or predictions.empty:
        return None
    goal = predictions["goal"].iloc[0]
    measured, predicted = front[front["goal"] == goal], predictions.sort_values("batch_size")
    tables = Tables()
    known = [*measured["updates"], *predicted["updates"], *predicted["updates_low"], *predicted["updates_high"]]
    x = log_axis(alt.X, "batch_size", "batch size (examples, log scale)", predicted["batch_size"])
    y = log_axis(alt.Y, "updates", "updates to the goal (log scale)", known)
    tooltip = [
        alt.Tooltip("batch_size:Q", title="batch size", format=",.3~r"),
        alt.Tooltip("updates:Q", format=",.4~r"),
    ]
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
        f"each batch size with its best settings.{_off(measured, predicted)}"
    )
    title = "Updates to the goal: measured, and by the noisy quadratic model"
    return Figure("noisy-quadratic-model", title, caption, alt.layer(*layers), tables)


def _off(measured: pd.DataFrame, predicted: pd.DataFrame) -> str:
    if measured.empty:
        return ""
    at, updates = (np.log(measured[name].to_numpy(float)) for name in ("batch_size", "updates"))
    line = (np.log(predicted[name].to_numpy(float)) for name in ("batch_size", "updates"))
    errors = updates - np.interp(at, *line)
    return f" The points are a typical factor of {number(float(np.exp(np.sqrt(np.mean(errors**2)))), 3)} off the line."
