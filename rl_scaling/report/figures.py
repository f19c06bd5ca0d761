"""What a chart is made of and how it comes to the page: tables, figures, and the list in which each is registered.

Charts refer to their tables by name. A table's name follows from its content, so charts that draw the same rows share
them; and the tables stay out of the chart objects, which altair would copy and validate row by row. A chart is a
function in a file below `rl_scaling.report.charts`, named there in `MODULES`; charts come in the order of that list,
those of one file from top to bottom.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeVar, get_args

import altair as alt
import pandas as pd

DIGITS = 5

# {column: [value, ...]} or {column: {"values": [...], "places": [...]}} for few different values, whichever is shorter.
Columns = dict[str, Any]


class Tables(dict[str, Columns]):
    """The named tables of one chart."""

    def add(self, frame: pd.DataFrame, names: Sequence[str]) -> alt.NamedData:
        """Keeps the named columns of a table and returns what a chart calls it. NaN and infinity become null."""
        columns = {name: _packed([read(v) for v in frame[name].tolist()]) for name, read in _readers(frame, names)}
        text = json.dumps(columns, allow_nan=False, separators=(",", ":"))
        key = "table-" + hashlib.sha256(text.encode()).hexdigest()[:12]
        self[key] = columns
        return alt.NamedData(name=key)


@dataclass(frozen=True)
class Figure:
    """One chart with the words around it.

    Attributes:
        name: what the exported files are called, without their ending.
        title: one line that says what the chart shows.
        caption: what the marks mean and how many runs are in it.
        chart: the chart itself, without a title.
        tables: the data the chart refers to by name.
        wide: takes a whole row of the page.
    """

    name: str
    title: str
    caption: str
    chart: alt.LayerChart | alt.FacetChart | alt.Chart
    tables: Tables
    wide: bool = False


def _readers(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, Callable[[Any], Any]]]:
    return [(name, _reader(frame[name])) for name in names]


def _reader(column: pd.Series) -> Callable[[Any], Any]:
    if pd.api.types.is_bool_dtype(column):
        return bool
    if pd.api.types.is_integer_dtype(column):
        return int
    return _short if pd.api.types.is_float_dtype(column) else str


def _short(value: float) -> float | int | None:
    """Five significant digits; None for what is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    if math.isinf(short):  # the largest numbers round to infinity
        return value
    return int(short) if short.is_integer() else short


def _packed(values: list[Any]) -> list[Any] | dict[str, list[Any]]:
    different = list(dict.fromkeys(values))
    if len(different) > len(values) // 4:
        return values
    place = {value: i for i, value in enumerate(different)}
    return {"values": different, "places": [place[value] for value in values]}


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    """The rows of a packed table, as Vega-Lite takes them."""
    lists = [c if isinstance(c, list) else [c["values"][i] for i in c["places"]] for c in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


# What a chart is drawn from: a `TaskView`, once for every task; the `Overview` of a page; the best rates of budgets.
Scope = Literal["task", "overview", "budgets"]
Figures = Figure | Sequence[Figure] | None
Draw = TypeVar("Draw", bound=Callable[[Any], Figures])
SCOPES: tuple[Scope, ...] = get_args(Scope)
_CHARTS: dict[Scope, list[Chart]] = {scope: [] for scope in SCOPES}


@dataclass(frozen=True)
class Chart:
    """A registered chart.

    Attributes:
        draw: makes the figure or figures; None where there is nothing to show.
        tables: from the `Overview`, the tables behind it that `--tables` writes, by the names of their files.
    """

    draw: Callable[[Any], Figures]
    tables: Callable[[Any], Mapping[str, pd.DataFrame]] = lambda _: {}


def chart(
    scope: Scope, *, tables: Callable[[Any], Mapping[str, pd.DataFrame]] = lambda _: {}
) -> Callable[[Draw], Draw]:
    """Register a chart; see `Chart` and `Scope`."""

    def register(draw: Draw) -> Draw:
        _CHARTS[scope].append(Chart(draw, tables))
        return draw

    return register


def charts_of(scope: Scope) -> list[Chart]:
    """The charts of one scope, in the order of the page."""
    from rl_scaling.report.charts import MODULES

    for name in MODULES:
        import_module(f"rl_scaling.report.charts.{name}")
    places = {f"rl_scaling.report.charts.{name}": place for place, name in enumerate(MODULES)}
    return sorted(_CHARTS[scope], key=lambda one: places.get(one.draw.__module__, len(places)))


def draw_all(scope: Scope, source: Any) -> list[Figure]:
    """Every figure that there is something to show in."""
    figures: list[Figure] = []
    for one in charts_of(scope):
        drawn = one.draw(source)
        figures += [] if drawn is None else [drawn] if isinstance(drawn, Figure) else drawn
    return figures
