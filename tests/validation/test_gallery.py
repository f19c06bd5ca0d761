"""Figures that stand on their own: the page holds chart, checks and numbers, escaped."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rl_scaling.validation.gallery import Axis, Check, Exhibit, line_figure, write_gallery


def test_a_page_has_charts_checks_and_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 10.0], "y": [5.0, 50.0], "power": [0.0, 0.0], "line": "<b>"})
    figure = line_figure(
        ("name", "A title", "A caption"), frame, Axis("x", "x (unit)"), Axis("y", "y"), colour="power", colour_title="p"
    )
    checks = [Check("rises", "from 5 to 50", True), Check("falls <", "it does not", False)]
    page = write_gallery(
        [Exhibit("Figure 1", figure, checks, frame)], tmp_path / "page.html", title="T", figures=tmp_path / "figures"
    )
    text = page.read_text()
    for words in ("Figure 1", "A caption", "does not hold", "falls &lt;", "from 5 to 50"):
        assert words in text
    assert "<b></td>" not in text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"name.svg", "name.pdf", "name.png", "name.csv"}


def test_lines_of_several_kinds_have_a_legend_that_shows_and_colours_of_one_value_have_none() -> None:
    kinds = ("below", "above")
    rows = [(x, x * place, "one thing", kind) for place, kind in enumerate(kinds, 1) for x in (1.0, 10.0)]
    frame = pd.DataFrame(rows, columns=pd.Index(["x", "y", "what", "line"])).assign(power=0.0)
    axes = Axis("x", "x (unit)"), Axis("y", "y")
    for colour, band in (("power", None), ("what", "above")):
        figure = line_figure(("n", "T", "c"), frame, *axes, colour=colour, colour_title="c", band=band)
        lines = [layer for layer in figure.chart.to_dict()["layer"] if layer["mark"]["type"] == "line"]
        assert len(lines) == 2
        key = lines[0]["encoding"]["strokeDash"]["legend"]
        assert (key["symbolType"], key["symbolStrokeColor"]) == ("stroke", "var(--ink)")
        order = lines[0]["encoding"]["strokeDash"]["scale"]["domain"]
        assert order == (["above", "below"] if band else list(kinds)), "the band lies beneath"
        assert (lines[0]["encoding"]["color"].get("legend") is None) == (colour == "power")
