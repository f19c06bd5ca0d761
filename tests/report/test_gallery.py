"""Figures that stand on their own: the page holds chart, checks and numbers, escaped."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rl_scaling.report.gallery import Check, Exhibit, write_gallery
from rl_scaling.validation.published_chart import Axis, line_figure


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
