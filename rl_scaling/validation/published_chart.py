"""The one kind of chart that the published figures need: lines on logarithmic or linear axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt
import pandas as pd

from rl_scaling.report.data import Tables
from rl_scaling.report.theme import Figure, legend, log_axis, ordered_colour, ramp

_Channel = TypeVar("_Channel", alt.X, alt.Y)
_DASHES = ([1, 0], [6, 4], [2, 3], [9, 3, 2, 3])
_BAND = 7


@dataclass(frozen=True)
class Axis:
    """One axis: the column it shows, its title with the unit, and whether it is logarithmic."""

    column: str
    title: str
    log: bool = True
    format: str = "~s"


def line_figure(
    words: tuple[str, str, str],
    frame: pd.DataFrame,
    x: Axis,
    y: Axis,
    *,
    colour: str,
    colour_title: str,
    points: bool = True,
    band: str | None = None,
) -> Figure:
    """A figure of lines: one for each value of `colour` and each of the column "line", which sets the dashes.

    Args:
        words: name of exported files; title, what the chart shows; caption, what the marks mean.
        frame: one row per point, with the columns of both axes, `colour` (numbers or words), "line" (words), and for
            rows that stand apart from the colours, such as a bound, NaN in `colour`.
        x: the horizontal axis.
        y: the vertical axis.
        colour: the column of the colours; it has a legend where it has two values or more.
        colour_title: what it is.
        points: whether points are marked.
        band: the value of "line" that is drawn wide and pale beneath the others, where lines lie on each other.
    """
    tables = Tables()
    kinds = sorted(dict.fromkeys(frame["line"]), key=lambda kind: kind != band)
    shared = {
        "x": _axis(alt.X, x, frame),
        "y": _axis(alt.Y, y, frame),
        "tooltip": _tooltip(frame),
        "order": f"{x.column}:Q",
    }
    columns = [str(column) for column in frame.columns]
    hue = _colour(frame[colour], colour, colour_title)
    own, apart = frame[frame[colour].notna()], frame[frame[colour].isna()]
    layers: list[alt.Chart] = []
    for kind in (kind for kind in kinds if (own["line"] == kind).any()):
        chart = alt.Chart(tables.add(own[own["line"] == kind], columns))
        layers.append(chart.mark_line(clip=True).encode(**shared, **_stroke(kinds, band), color=hue))
        if points:
            marks = chart.mark_point(size=38, filled=True, opacity=1, clip=True)
            layers.append(marks.encode(**shared, color=hue))
    if len(apart):
        plain = alt.Chart(tables.add(apart, columns)).mark_line(color="var(--ink)", clip=True)
        layers.append(plain.encode(**shared, **_stroke(kinds, band), detail="line:N"))
    return Figure(*words, alt.layer(*layers), tables, wide=True)


def _stroke(kinds: Sequence[str], band: str | None) -> dict[str, Any]:
    """Dashes, and for the band its width and paleness, with one legend for all of them."""
    key = (
        legend("", entry_width=150, symbolType="stroke", symbolSize=1200, symbolStrokeColor="var(--ink)")
        if len(kinds) > 1
        else None
    )

    def scale(values: Sequence[Any]) -> alt.Scale:
        return alt.Scale(domain=list(kinds), range=list(values))

    found = {"strokeDash": alt.StrokeDash("line:N", scale=scale(_DASHES[: len(kinds)]), legend=key)}
    if band is None:
        return {**found, "strokeWidth": alt.value(2)}
    widths, opacities = [_BAND if kind == band else 1.8 for kind in kinds], [0.3 if k == band else 1 for k in kinds]
    return {
        **found,
        "strokeWidth": alt.StrokeWidth("line:N", scale=scale(widths), legend=key),
        "strokeOpacity": alt.StrokeOpacity("line:N", scale=scale(opacities), legend=key),
    }


def _colour(values: pd.Series, field: str, title: str) -> alt.Color:
    known = values.dropna()
    if pd.api.types.is_numeric_dtype(known):
        numbers = sorted(known.unique())
        return ordered_colour(field, numbers, title, shown=len(numbers) > 1)
    names = list(dict.fromkeys(known))
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=names, range=ramp(len(names))), legend=legend(title))


def _axis(channel: type[_Channel], axis: Axis, frame: pd.DataFrame) -> _Channel:
    if axis.log:
        return log_axis(channel, axis.column, f"{axis.title} (log scale)", frame[axis.column], format=axis.format)
    return channel(
        f"{axis.column}:Q", title=axis.title, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=10)
    )


def _tooltip(frame: pd.DataFrame) -> list[alt.Tooltip]:
    kinds: Sequence[tuple[str, bool]] = [(str(n), pd.api.types.is_numeric_dtype(frame[n])) for n in frame.columns]
    return [
        alt.Tooltip(f"{name}:Q", title=name.replace("_", " "), format=",.4~g") if numeric else alt.Tooltip(f"{name}:N")
        for name, numeric in kinds
    ]
