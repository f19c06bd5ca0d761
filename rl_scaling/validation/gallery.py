"""A page of figures that stand on their own, what each should show beside what it shows; and the charts of lines on it.

Where `rl_scaling.report.section` draws the runs of a store, this draws figures that somebody made elsewhere, such as
those of a paper, redone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.estimates import number
from rl_scaling.report.figures import Figure, Tables
from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.page import Drawn, document, export_figure, write_file
from rl_scaling.report.theme import legend, log_axis, named_colour, ordered_colour, ramp


@dataclass(frozen=True)
class Check:
    """One thing that a figure should show.

    Attributes:
        claim: what it should show, in words.
        found: what it shows, with the measured numbers.
        holds: whether the one agrees with the other.
    """

    claim: str
    found: str
    holds: bool | np.bool_


@dataclass(frozen=True)
class Exhibit:
    """One figure with its checks and its numbers.

    Attributes:
        heading: what it is called elsewhere, "Figure 3a".
        figure: the chart.
        checks: what it should show and what it shows.
        numbers: the table behind the chart, for people.
    """

    heading: str
    figure: Figure
    checks: Sequence[Check]
    numbers: pd.DataFrame


def write_gallery(
    exhibits: Sequence[Exhibit], path: Path | str, *, title: str, lead: str = "", figures: Path | str | None = None
) -> Path:
    """Writes one HTML file with every figure, its checks and its numbers.

    Args:
        path: where the page goes; its folder is made, a page that is there is replaced.
        figures: a folder for every chart as SVG and PNG and every table as CSV; None writes none.

    Returns:
        The path of the page.

    Raises:
        OSError: the page or a figure cannot be written.
    """
    drawn = Drawn()
    bodies = [_exhibit_html(exhibit, f"part-{place}", drawn) for place, exhibit in enumerate(exhibits)]
    page = document(bodies, [exhibit.heading for exhibit in exhibits], drawn, title=title, lead=lead)
    write_file(Path(path), page.encode())
    if figures is not None:
        for exhibit in exhibits:
            stem = Path(figures) / exhibit.figure.name
            export_figure(exhibit.figure, stem)
            write_file(stem.with_name(stem.name + ".csv"), exhibit.numbers.to_csv(index=False).encode())
    return Path(path)


def _exhibit_html(exhibit: Exhibit, identity: str, drawn: Drawn) -> Html:
    inside = [
        tag("h2", exhibit.heading),
        tag("div", drawn.figure(exhibit.figure), class_="grid"),
        tag("div", _checks_table(exhibit.checks), _numbers(exhibit.numbers), class_="card"),
    ]
    return tag("section", *inside, id=identity)


def _checks_table(checks: Sequence[Check]) -> Html:
    rows = [[check.claim, check.found, _pill(check.holds)] for check in checks]
    return table(["What it should show", "What it shows", ""], rows, words=[0, 1, 2])


def _pill(holds: bool | np.bool_) -> Html:
    return tag("span", "holds" if holds else "does not hold", class_=f"pill {'good' if holds else 'warn'}")


def _numbers(frame: pd.DataFrame) -> Html:
    names = [str(name) for name in frame.columns]
    words = [place for place, name in enumerate(names) if not pd.api.types.is_numeric_dtype(frame[name])]
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    heads = [name.replace("_", " ") for name in names]
    return tag("details", tag("summary", "The numbers"), join([table(heads, rows, words=words)]))


def _cell(value: object) -> object:
    return number(float(value), 4) if isinstance(value, int | float) else value


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
        colour: the column of the colours; it has a legend where it has two values or more.
        band: the value of "line" that is drawn wide and pale beneath the others, where lines lie on each other.
    """
    columns = [x.column, y.column, colour, "line"]
    frame, tables = frame[columns], Tables()
    kinds = sorted(dict.fromkeys(frame["line"]), key=lambda kind: kind != band)
    shared = {
        "x": _axis(alt.X, x, frame),
        "y": _axis(alt.Y, y, frame),
        "tooltip": _tooltip(frame),
        "order": f"{x.column}:Q",
    }
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
    return named_colour(field, names, ramp(len(names)), legend(title))


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
