"""The data behind charts: short numbers, nothing that JSON cannot say, each table once on a page.

Charts refer to their tables by name. A table's name follows from its content, so charts that draw the same rows share
them; and the tables stay out of the chart objects, which altair would copy and validate row by row.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

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
