"""The tables of the report as files: CSV, Parquet and Markdown."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from rl_scaling.report.overview import Overview
from rl_scaling.report.page import write_file
from rl_scaling.report.registry import SCOPES, charts_of


def tables_of(overview: Overview) -> dict[str, pd.DataFrame]:
    """Every table behind the charts of a page that has rows, by the name of its file."""
    tables: dict[str, pd.DataFrame] = {}
    for scope in SCOPES:
        for one in charts_of(scope):
            tables |= one.tables(overview)
    return {name: table for name, table in tables.items() if len(table)}


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Every table as NAME.csv, NAME.parquet and NAME.md; replaces files of these names.

    Raises:
        OSError: a file cannot be written.
    """
    written = []
    for name, table in tables.items():
        parquet = io.BytesIO()
        table.to_parquet(parquet, index=False)
        contents = {"csv": table.to_csv(index=False).encode(), "parquet": parquet.getvalue(), "md": _markdown(table)}
        for ending, content in contents.items():
            write_file(path := folder / f"{name}.{ending}", content)
            written.append(path)
    return written


def _markdown(table: pd.DataFrame) -> bytes:
    lines = [_line(table.columns), _line("---" for _ in table.columns)]
    lines += [_line(map(_cell, row)) for row in table.itertuples(index=False)]
    return ("\n".join(lines) + "\n").encode()


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _cell(value: object) -> str:
    """A cell that cannot end its column or its line."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
