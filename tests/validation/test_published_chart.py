from __future__ import annotations

import pandas as pd

from rl_scaling.validation.published_chart import Axis, line_figure


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
