"""The tables of the report as files: CSV, Parquet and Markdown."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from rl_scaling.report.cross_domain import Overview
from rl_scaling.report.page import write_file
from rl_scaling.report.published_scales import published_pairs
from rl_scaling.report.scales_table import scales


def tables_of(overview: Overview) -> dict[str, pd.DataFrame]:
    """Every table of the report by the name of its file."""
    agreements = [
        {"domain": name, "goals": one.pairs, "tasks": one.tasks}
        | {
            f"{what}{end}": value
            for what in ("correlation", "factor", "bias")
            for end, value in zip(("", "_low", "_high"), getattr(one, what), strict=True)
        }
        for name, one in overview.agreements().items()
    ]
    tables = {
        "fits": overview.fit.fits,
        "fronts": overview.fit.fronts,
        "learning-rates": overview.fit.learning_rates,
        "adaptive": overview.fit.adaptive,
        "agreement": pd.DataFrame(agreements),
        "scales": scales(overview.fit.fits, overview.domains),
        "published": published_pairs(),
    }
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
