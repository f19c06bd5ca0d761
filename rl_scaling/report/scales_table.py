"""Critical batch sizes and noise scales early and late in training, measured beside published."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from rl_scaling.analysis.agreement import DOMAINS
from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.numbers import DASH, interval, number
from rl_scaling.report.published_scales import PUBLISHED, SOURCE, Span
from rl_scaling.report.tables import easiest_first, with_interval

SCALE_COLUMNS = (
    *("domain", "task", "unit", "first_goal", "last_goal"),
    *(f"critical_batch_{when}{end}" for when in ("first", "last") for end in ("", "_low", "_high")),
    *(f"noise_scale_{when}{end}" for when in ("first", "mean") for end in ("", "_low", "_high")),
)
_FROM = {
    "critical_batch_first": ("critical_batch", 0),
    "critical_batch_last": ("critical_batch", -1),
    "noise_scale_first": ("noise_scale", 0),
    "noise_scale_mean": ("noise_scale_mean", -1),
}


def scales(fits: pd.DataFrame, domains: Mapping[str, str]) -> pd.DataFrame:
    """One row per task that reached a goal: SCALE_COLUMNS.

    first is the easiest goal that was reached, last the hardest. Batch sizes are in the task's unit; an upper end is
    infinite where only a lower bound is known, and the value NaN.

    Args:
        fits: `SweepFit.fits`.
        domains: of every task.
    """
    rows = []
    for task, found in fits[fits["status"] != "not reached"].groupby("task"):
        ordered = easiest_first(found)
        row = {
            "domain": domains[str(task)],
            "task": task,
            "unit": found["unit"].iloc[0],
            "first_goal": ordered["goal"].iloc[0],
            "last_goal": ordered["goal"].iloc[-1],
        }
        for name, (column, place) in _FROM.items():
            row |= {f"{name}{end}": ordered[f"{column}{end}"].iloc[place] for end in ("", "_low", "_high")}
        rows.append(row)
    ordered_rows = sorted(rows, key=lambda row: (DOMAINS.index(row["domain"]), row["task"]))
    return pd.DataFrame(ordered_rows, columns=pd.Index(SCALE_COLUMNS))


def scales_table(measured: pd.DataFrame) -> Html:
    """What `scales` found, and below it the published values."""
    heads = [
        "Task",
        "Counted in",
        "Goals, first and last",
        join(["B", tag("sub", "crit"), ", first goal"]),
        join(["B", tag("sub", "crit"), ", last goal"]),
        join(["B", tag("sub", "simple"), ", on the way to the first"]),
        join(["B", tag("sub", "simple"), ", mean over training"]),
    ]
    rows = [_measured_row(row) for _, row in measured.iterrows()]
    rows += [
        [
            join([scale.task, " ", tag("span", "published", class_="pill soft")]),
            scale.unit,
            DASH,
            *map(_span, (scale.critical_start, scale.critical_end, scale.noise_start, scale.noise_mean)),
        ]
        for scale in PUBLISHED
    ]
    note = f"Published: {SOURCE}, at the start and the end of training, Atari as the range over games."
    return join([table(heads, rows, words=[0, 1]), tag("p", note, class_="soft")])


def _measured_row(row: pd.Series) -> list[object]:
    ends = [[row[f"{name}{end}"] for end in ("", "_low", "_high")] for name in _FROM]
    return [
        row["task"],
        row["unit"],
        f"{row['first_goal']:g}; {row['last_goal']:g}",
        *(with_interval(value, low, high, 2) for value, low, high in ends),
    ]


def _span(span: Span | None) -> str:
    if span is None:
        return DASH
    if math.isinf(span[1]):
        return f"at least {number(span[0])}"
    return number(span[0]) if span[0] == span[1] else interval(*span)
