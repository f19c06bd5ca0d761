"""The charts of the page: each registers itself, and whoever draws, tabulates or exports walks the list.

A chart is a function in a file of its own below `rl_scaling.report.charts`, named there in `MODULES`. Charts come in
the order of that list, those of one file from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeVar, get_args

import pandas as pd

from rl_scaling.report.theme import Figure

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
