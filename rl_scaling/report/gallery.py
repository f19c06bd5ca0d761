"""A page of figures that stand on their own: what each should show, beside what it shows.

Where `rl_scaling.report.section` draws the runs of a store, this draws figures that somebody made elsewhere, such as
those of a paper, redone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rl_scaling.estimates import number
from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.page import Drawn, document, export_figure, write_file
from rl_scaling.report.theme import Figure


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


def gallery_html(exhibits: Sequence[Exhibit], *, title: str, lead: str = "") -> str:
    """The whole page as text; see `write_gallery`."""
    drawn = Drawn()
    bodies = [_exhibit_html(exhibit, f"part-{place}", drawn) for place, exhibit in enumerate(exhibits)]
    return document(bodies, [exhibit.heading for exhibit in exhibits], drawn, title=title, lead=lead)


def write_gallery(
    exhibits: Sequence[Exhibit], path: Path | str, *, title: str, lead: str = "", figures: Path | str | None = None
) -> Path:
    """Writes one HTML file with every figure, its checks and its numbers.

    Args:
        exhibits: the figures, in order.
        path: where the page goes; its folder is made, a page that is there is replaced.
        lead: a sentence or two below it.
        figures: a folder for every chart as SVG and PNG and every table as CSV; None writes none.

    Returns:
        The path of the page.

    Raises:
        OSError: the page or a figure cannot be written.
    """
    write_file(Path(path), gallery_html(exhibits, title=title, lead=lead).encode())
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
