"""The report as one HTML file that needs no network, its charts as SVG, PDF and PNG, and its tables as files."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from rl_scaling.report.figures import SCOPES, Columns, Figure, charts_of, draw_all, rows_of
from rl_scaling.report.html import SCRIPT, Html, json_script, style_sheet, tag
from rl_scaling.report.overview import OVERVIEW, Overview, overview_html
from rl_scaling.report.section import Section, TaskPart, section_html, task_parts
from rl_scaling.report.theme import config, with_plain_colours

CHART_HEIGHT = 330
WIDE_CHART_HEIGHT = 400
FIGURE_WIDTH = 680
# Nothing on the page may reach a network: the browser itself refuses.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"


# Run inside the bundle, where vega-embed has this name.
_ENTRY = "window.vegaEmbed = vegaEmbed;"


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script that leaves `vegaEmbed` behind and no other name of its own."""
    bundle = vl_convert.javascript_bundle(_ENTRY)
    return "(()=>{" + bundle.replace("</script", "<\\/script") + "})();"


def specification(figure: Figure) -> dict[str, Any]:
    """The Vega-Lite specification of a figure, as wide as its container, without the rows of its tables."""
    height = WIDE_CHART_HEIGHT if figure.wide else CHART_HEIGHT
    chart = figure.chart.properties(
        width="container",
        height=height,
        description=f"{figure.title}. {figure.caption}",
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
    )
    spec = chart.to_dict(validate=False)  # half the time of a page otherwise; tests validate every chart
    spec.pop("config", None)
    return spec


class Drawn:
    """The charts of a page: their markup, and their data, each table once."""

    def __init__(self) -> None:
        self.data: dict[str, Columns] = {}
        self.scripts: list[Html] = []

    def figure(self, figure: Figure, command: str = "") -> Html:
        """The markup of a chart; `command` is named below it."""
        spec = specification(figure)
        self.data |= figure.tables
        identity = f"chart-{len(self.scripts)}"
        self.scripts.append(json_script(identity, spec | {"datasets": list(figure.tables)}))
        chart = tag("div", class_="chart", data_spec=identity, data_name=figure.name)
        save = tag("button", "Save as SVG", class_="save", type="button", hidden="hidden")
        words = tag("figcaption", figure.caption, *([" ", tag("code", command)] if command else []))
        return tag("figure", save, tag("h4", figure.title), chart, words, class_="wide" if figure.wide else None)


def _navigation(headings: Sequence[str]) -> Html:
    if len(headings) < 2:
        return Html("")
    links = [tag("li", tag("a", heading, href=f"#part-{i}")) for i, heading in enumerate(headings)]
    return tag("nav", tag("ul", *links), aria_label="Parts of this page")


def page_html(
    sections: Sequence[Section],
    *,
    title: str,
    lead: str = "",
    overview: Overview | None = None,
    overview_after: int = 0,
    parts: Sequence[Sequence[TaskPart]] | None = None,
) -> str:
    """The whole page as text, see `write_report`; `parts` has the `task_parts` of each section where they are drawn."""
    parts = [task_parts(section) for section in sections] if parts is None else parts
    drawn = Drawn()
    headings = [section.heading for section in sections]
    own: list[Section | None] = list(sections)
    if overview is not None:
        headings.insert(overview_after, OVERVIEW)
        own.insert(overview_after, None)
    of_sections = iter(parts)
    bodies = []
    for place, section in enumerate(own):
        if section is not None:
            bodies.append(section_html(section, f"part-{place}", next(of_sections), drawn.figure))
        elif overview is not None:
            figures = [drawn.figure(figure) for figure in draw_all("overview", overview)]
            bodies.append(overview_html(overview, f"part-{place}", figures))
    return document(bodies, headings, drawn, title=title, lead=lead)


def document(bodies: Sequence[Html], headings: Sequence[str], drawn: Drawn, *, title: str, lead: str = "") -> str:
    """A whole page as text.

    Args:
        bodies: its parts; the id of each is "part-0", "part-1" and so on.
        headings: their headings, for the links at the top.
        drawn: the charts in them.
    """
    head = [
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'),
        tag("title", title),
        tag("style", Html(style_sheet())),
    ]
    top = tag("header", tag("h1", title), tag("p", lead) if lead else "", _navigation(headings), class_="top")
    foot = tag("footer", "Made by rl-scaling. This file holds everything it shows and needs no network.")
    data = [json_script("data", drawn.data), json_script("config", config()), *drawn.scripts]
    scripts = [*data, tag("script", Html(_vega())), tag("script", Html(SCRIPT))] if drawn.scripts else []
    body = tag("body", top, tag("main", *bodies), foot, *scripts)
    return "<!doctype html>\n" + tag("html", tag("head", *head), body, lang="en") + "\n"


def write_file(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that a page that was there is replaced whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "part"


def export_figures(parts: Sequence[Sequence[TaskPart]], headings: Sequence[str], folder: Path) -> list[Path]:
    """Every chart as `export_figure` writes it; names say which part and task they belong to."""
    written: list[Path] = []
    for heading, of_section in zip(headings, parts, strict=True):
        for part in of_section:
            start = [_slug(heading)] if len(headings) > 1 else []
            start += [_slug(part.view.task)] if len(of_section) > 1 else []
            for figure in part.figures:
                written += export_figure(figure, folder / "-".join([*start, figure.name]))
    return written


def export_figure(figure: Figure, stem: Path) -> list[Path]:
    """One chart as SVG, PDF and PNG (twice the size): `stem` with each ending; replaces files of these names."""
    spec = specification(figure) | {"width": FIGURE_WIDTH, "padding": 14}
    spec["datasets"] = {name: rows_of(columns) for name, columns in figure.tables.items()}
    spec["config"] = config() | {"background": "#ffffff"}
    spec["title"] = {"text": figure.title, "offset": 12}
    plain = with_plain_colours(json.dumps(spec))
    contents = {
        "svg": vl_convert.vegalite_to_svg(plain).encode(),
        "pdf": vl_convert.vegalite_to_pdf(plain),
        "png": vl_convert.vegalite_to_png(plain, scale=2),
    }
    written = [stem.with_name(f"{stem.name}.{ending}") for ending in contents]
    for path, content in zip(written, contents.values(), strict=True):
        write_file(path, content)
    return written


def write_report(
    sections: Sequence[Section],
    path: Path | str,
    *,
    title: str,
    lead: str = "",
    overview: Overview | None = None,
    overview_after: int = 0,
    figures: Path | str | None = None,
) -> Path:
    """Writes the report: one HTML file that opens without a network, and its charts as files if asked for.

    Args:
        sections: the parts of the page, in order; each has its own runs and fits.
        path: where the page goes; its folder is made, a page that is there is replaced.
        overview: what is compared over all sections; None for pages of one task.
        overview_after: sections that come before it.
        figures: a folder for every chart as SVG, PDF and PNG; None writes none.

    Returns:
        The path of the page.

    Raises:
        ValueError: no sections.
        OSError: the page or a chart cannot be written.
    """
    if not sections:
        raise ValueError("no sections: give at least one")
    parts = [task_parts(section) for section in sections]
    target = Path(path)
    page = page_html(sections, title=title, lead=lead, overview=overview, overview_after=overview_after, parts=parts)
    write_file(target, page.encode())
    if figures is not None:
        for figure in draw_all("overview", overview) if overview else []:
            export_figure(figure, Path(figures) / figure.name)
        export_figures(parts, [section.heading for section in sections], Path(figures))
    return target


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
