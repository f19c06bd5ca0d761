"""The noise scale of weights that were kept, beside what a meter shows while they change."""

from __future__ import annotations

import altair as alt
import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.views import positive
from rl_scaling.estimates import columns_of, count_of
from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.theme import Words, count_axis, legend, log_axis, percent, tooltips

_KEPT = {
    "noise_scale": "B_simple, weights kept",
    "hessian_noise_scale": "B_noise, weights kept",
}
_WHILE_TRAINING = "B_simple while training"
_COLUMNS = ["what", "examples", "value", "low", "high", "setting"]


@chart("task")
def frozen_noise_figure(view: TaskView) -> Figure | None:
    """B_simple and B_noise of weights that were kept, over the frames that had been learned from; None without any."""
    table = _long(view)
    if table[["value", "low"]].isna().all(axis=None):
        return None
    words, tables = Words(view.measure), Tables()
    course = view.noise.dropna(subset=["noise_scale"])
    line = pd.DataFrame(
        {
            "what": _WHILE_TRAINING,
            "examples": (course["bin_low"] + course["bin_high"]) / 2,
            "value": course["noise_scale"],
        }
    )
    domain = [*_KEPT.values(), *([_WHILE_TRAINING] if len(line) else [])]
    colours = ["var(--noise)", "var(--critical)", "var(--ink)"][: len(domain)]
    shown = alt.Scale(domain=domain, range=colours)
    colour = alt.Color("what:N", scale=shown, legend=legend("", entry_width=180))
    known = pd.concat([table["value"], table["low"], table["high"], line["value"]])
    x = count_axis(alt.X, "examples", f"{words.counted} learned from before")
    y = log_axis(alt.Y, "value", f"noise scale ({words.unit}, log scale)", known)
    low = y.copy()
    low.shorthand = "low:Q"
    tooltip = tooltips(words, table, "what", "setting", "value", "low", "high", setting="weights")
    valued = table[table["value"].notna()]
    layers = [
        (line, alt.MarkDef("line", strokeWidth=2, opacity=0.6), {"y": y}),
        (
            valued[valued["high"].notna()],
            alt.MarkDef("rule", strokeWidth=2, opacity=0.55, clip=True),
            _ends(low, tooltip),
        ),
        (valued, alt.MarkDef("point", size=85, filled=True, opacity=1), {"y": y, "tooltip": tooltip}),
        (
            table[table["value"].isna() & table["low"].notna()],
            alt.MarkDef("point", shape="triangle-up", size=70, filled=True, opacity=0.8),
            {"y": low, "tooltip": tooltip},
        ),
    ]
    drawn = [
        alt.Chart(tables.add(part, [name for name in _COLUMNS if name in part]), mark=mark).encode(
            x=x, color=colour, **place
        )
        for part, mark, place in layers
        if len(part)
    ]
    caption = (
        f"Points: measured with the weights kept, in {count_of(len(view.own.frozen), 'measurement')}, with "
        f"{percent(view.own.frozen)} intervals; triangles: not resolved, at least this."
        + (" Line: B_simple pooled over the best learning rates while they train." if len(line) else "")
    )
    return Figure(
        "noise-scale-of-kept-weights", "Noise scale of weights that are kept", caption, alt.layer(*drawn), tables
    )


def _ends(low: alt.Y, tooltip: list[alt.Tooltip]) -> dict[str, object]:
    return {"y": low, "y2": "high:Q", "tooltip": tooltip}


def _long(view: TaskView) -> pd.DataFrame:
    """One row for each measurement and quantity: `_COLUMNS`; what a logarithmic axis cannot hold is NaN."""
    parts = []
    for name, what in _KEPT.items():
        frozen = view.own.frozen
        ends = {n: positive(frozen[c]) for n, c in zip(("value", "low", "high"), columns_of(name), strict=True)}
        place = {"what": what, "examples": frozen["of_frames"].astype(float), "setting": frozen["place"]}
        parts.append(pd.DataFrame(place | ends))
    return pd.concat(parts, ignore_index=True)[_COLUMNS]
