"""The one kind of chart that the published figures need: lines on logarithmic or linear axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import altair as alt
import pandas as pd

from rl_scaling.report.data import Tables
from rl_scaling.report.theme import Figure, legend, log_axis, ordered_colour

_Channel = TypeVar("_Channel", alt.X, alt.Y)
_DASHES = ([1, 0], [6, 4], [2, 3], [9, 3, 2, 3])


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
) -> Figure:
    """A figure of lines: one for each value of `colour` and each of the column "line", which sets the dashes.

    Args:
        words: name of exported files; title, what the chart shows; caption, what the marks mean.
        frame: one row per point, with the columns of both axes, `colour` (numbers), "line" (words), and for rows that
            stand apart from the colours, such as a bound, NaN in `colour`.
        x: the horizontal axis.
        y: the vertical axis.
        colour: the column of the colours.
        colour_title: what it is.
        points: whether points are marked.
    """
    tables = Tables()
    kinds = list(dict.fromkeys(frame["line"]))
    dash = alt.StrokeDash(
        "line:N",
        scale=alt.Scale(domain=kinds, range=[list(d) for d in _DASHES[: len(kinds)]]),
        legend=legend("", entry_width=190, symbolType="stroke", symbolStrokeWidth=1.5) if len(kinds) > 1 else None,
    )
    values = sorted(frame[colour].dropna().unique())
    own, apart = frame[frame[colour].notna()], frame[frame[colour].isna()]
    shared = {"x": _axis(alt.X, x, frame), "y": _axis(alt.Y, y, frame), "strokeDash": dash, "tooltip": _tooltip(frame)}
    columns = [str(column) for column in frame.columns]
    marker = alt.OverlayMarkDef(size=38, filled=True) if points else False
    chart = alt.Chart(tables.add(own, columns)).mark_line(strokeWidth=2, point=marker, clip=True)
    layers = [chart.encode(**shared, color=ordered_colour(colour, values, colour_title), order=f"{x.column}:Q")]
    if len(apart):
        plain = alt.Chart(tables.add(apart, columns)).mark_line(strokeWidth=1.5, color="var(--ink)", clip=True)
        layers.append(plain.encode(**shared, detail="line:N", order=f"{x.column}:Q"))
    return Figure(*words, alt.layer(*layers), tables, wide=True)


def _axis(channel: type[_Channel], axis: Axis, frame: pd.DataFrame) -> _Channel:
    if axis.log:
        return log_axis(channel, axis.column, f"{axis.title} (log scale)", frame[axis.column], format=axis.format)
    return channel(f"{axis.column}:Q", title=axis.title, scale=alt.Scale(zero=False, nice=False))


def _tooltip(frame: pd.DataFrame) -> list[alt.Tooltip]:
    kinds: Sequence[tuple[str, bool]] = [(str(n), pd.api.types.is_numeric_dtype(frame[n])) for n in frame.columns]
    return [
        alt.Tooltip(f"{name}:Q", title=name.replace("_", " "), format=",.4~g") if numeric else alt.Tooltip(f"{name}:N")
        for name, numeric in kinds
    ]
