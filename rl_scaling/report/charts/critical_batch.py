"""The critical batch size beside the noise scale: by goal of a task, and over all domains beside published values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.agreement import DOMAINS, agreement_rows
from rl_scaling.analysis.views import batch_sizes_by_goal
from rl_scaling.estimates import columns_of, count_of
from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.overview import SOURCE, Overview, published_pairs
from rl_scaling.report.theme import (
    SERIES_SHAPES,
    Words,
    legend,
    log_axis,
    named_colour,
    percent,
    series_colours,
    tooltips,
)

DODGE = 4  # pixels, so that the two marks of a goal do not hide each other
_NAMES = {"critical_batch": "critical batch size (fit)", "noise_scale": "simple noise scale (measured)"}
_ENDS = {"y": alt.Y("low:Q"), "y2": "high:Q"}


@chart("task")
def critical_batch_figure(view: TaskView) -> Figure | None:
    """B_crit and B_simple against the goal; None where neither is known for any goal."""
    fits, tables, words = view.own.fits, Tables(), Words(view.measure)
    table = batch_sizes_by_goal(fits)
    if table.empty:
        return None
    table["what"] = table["what"].map(_NAMES)
    columns = ["goal", "what", "value", "low", "high", "bound", "at"]
    known = pd.concat([table[name] for name in ("at", "low", "high")])
    y = log_axis(alt.Y, "at", f"{words.unit} per update (log scale)", known)
    x = _goal_axis(fits["goal"], words)
    domain = [*_NAMES.values()]
    key = legend("", entry_width=200)
    colour = named_colour("what", domain, ["var(--critical)", "var(--noise)"], key)
    shape = alt.Shape("what:N", scale=alt.Scale(domain=domain, range=["circle", "diamond"]), legend=key)
    tooltip = tooltips(words, table, "what", "goal", "value", "low", "high", "bound")
    layers: list[alt.Chart] = []
    for place, what in enumerate(domain):
        for part, mark, ends in _marks(table[table["what"] == what], shape):
            if len(part):
                moved = mark.copy()
                moved.xOffset = DODGE * (2 * place - 1)
                drawn = alt.Chart(tables.add(part, columns), mark=moved).encode(x=x, y=y, color=colour, tooltip=tooltip)
                layers.append(drawn.encode(**ends))
    caption = (
        f"Bars: {percent(fits)} intervals. Arrows: only a bound is known (pointing up: at least "
        f"this). The noise scale of a goal is pooled over the front's runs on their way to it. "
        f"From {count_of(len(view.fixed.runs), 'run')}."
    )
    return Figure(
        "critical-batch-size", "Critical batch size beside the noise scale", caption, alt.layer(*layers), tables
    )


def _goal_axis(goals: pd.Series, words: Words) -> alt.X:
    """Goals: linear for scores; logarithmic for losses, of which the smallest is the hardest."""
    if words.direction == "min":
        return log_axis(alt.X, "goal", f"{words.goal}, log scale", goals, format=".1~e")
    return alt.X("goal:Q", title=words.goal, scale=alt.Scale(zero=False, nice=False, padding=24))


def _marks(table: pd.DataFrame, shape: alt.Shape) -> list[tuple[pd.DataFrame, alt.MarkDef, dict[str, Any]]]:
    """What is drawn: rows, mark and further encodings; an arrow points away from each one-sided bound."""
    valued = table[table["value"].notna()]
    marks = [
        (table[table["low"].notna() & table["high"].notna()], alt.MarkDef("rule", strokeWidth=2, opacity=0.55), _ENDS),
        (valued, alt.MarkDef("line", strokeWidth=1.5, opacity=0.5), {}),
        (valued, alt.MarkDef("point", size=85, filled=True, opacity=1), {"shape": shape}),
    ]
    for bound, sign, head in (("at least", -1, "triangle-up"), ("at most", 1, "triangle-down")):
        part = table[table["bound"] == bound]
        marks.append((part, alt.MarkDef("tick", thickness=2, size=14, opacity=1, orient="horizontal"), {}))
        marks.append((part, alt.MarkDef("point", shape=head, size=70, yOffset=sign * 8, filled=True, opacity=1), {}))
    return marks


PUBLISHED_DOMAIN = "published, end of training"
_FIELDS = ("noise_scale", "critical_batch")
_PAIR_COLUMNS = ["domain", "task", "goal", "unit", *(column for name in _FIELDS for column in columns_of(name))]


def _agreement_tables(overview: Overview) -> dict[str, pd.DataFrame]:
    found = {"agreement": agreement_rows(overview.agreements), "scales": overview.scales}
    return found | {"published": published_pairs()}


@chart("overview", tables=_agreement_tables)
def agreement_figure(overview: Overview) -> Figure | None:
    """B_crit against B_simple of every goal, and the published pairs; None where no pair was measured."""
    pairs = overview.pairs
    if pairs.empty:
        return None
    renamed = dict(zip(columns_of("noise_scale_mean"), columns_of("noise_scale"), strict=True))
    measured = pairs.drop(columns=[*renamed.values()]).rename(columns=renamed)
    # A loss and a score are told apart by their task: the goal alone is shown as it is written.
    measured = measured.assign(goal=measured["goal"].map("{:g}".format))[_PAIR_COLUMNS]
    published = published_pairs().assign(domain=PUBLISHED_DOMAIN, goal="")[_PAIR_COLUMNS]
    both = pd.concat([measured, published], ignore_index=True)
    domains = [name for name in DOMAINS if name in set(measured["domain"])]
    caption = (
        f"Measured here, {count_of(len(measured), 'goal')} from {count_of(overview.runs, 'run')}; bars are "
        f"{percent(overview.fit.fits)} intervals, goals in which either is unknown to a factor of 100 are left out. "
        f"Triangles: {SOURCE}, ranges as bars. Solid line: the two are equal; dotted: a factor of 3 off. "
        + (f"Made with {overview.command}." if overview.command else "")
    )
    return Figure(
        "critical-batch-against-noise-scale",
        "Critical batch size against noise scale, all domains",
        caption.strip(),
        _agreement_chart(both, domains, tables := Tables()),
        tables,
        wide=True,
    )


def _agreement_chart(both: pd.DataFrame, domains: Sequence[str], tables: Tables) -> alt.LayerChart | alt.FacetChart:
    ends = pd.concat([both[column] for name in _FIELDS for column in columns_of(name)])
    x = log_axis(alt.X, "noise_scale", "mean noise scale (examples, frames or tokens)", ends)
    y = log_axis(alt.Y, "critical_batch", "critical batch size (in the same unit)", ends)
    names = [*domains, PUBLISHED_DOMAIN]
    key = legend("", entry_width=190)
    place = [DOMAINS.index(name) for name in domains]
    colours = [*(series_colours(len(DOMAINS))[i] for i in place), "var(--ink-soft)"]
    shapes = [*(SERIES_SHAPES[i] for i in place), "triangle-up"]
    colour = named_colour("domain", names, colours, key)
    shape = alt.Shape("domain:N", scale=alt.Scale(domain=names, range=shapes), legend=key)
    data = alt.Chart(tables.add(both, _PAIR_COLUMNS)).encode(x=x, y=y, color=colour, tooltip=_pair_tooltip())
    bars = data.mark_rule(opacity=0.35, strokeWidth=1.3, clip=True)
    published = alt.datum.domain == PUBLISHED_DOMAIN
    labels = both[both["domain"] == PUBLISHED_DOMAIN]
    text = alt.Chart(tables.add(labels, ["task", *_FIELDS])).mark_text(
        align="center", dy=-11, fontSize=10.5, color="var(--ink-soft)", tooltip=False
    )
    return alt.layer(
        *_diagonals(ends, tables),
        bars.encode(x="noise_scale_low:Q", x2="noise_scale_high:Q"),
        bars.encode(y="critical_batch_low:Q", y2="critical_batch_high:Q"),
        data.mark_point(size=70, filled=True, opacity=0.9).encode(shape=shape).transform_filter(~published),
        data.mark_point(size=70, filled=False, strokeWidth=1.6, opacity=1)
        .encode(shape=shape)
        .transform_filter(published),
        text.encode(x="noise_scale:Q", y="critical_batch:Q", text="task:N"),
    )


def _pair_tooltip() -> list[alt.Tooltip]:
    titles = {"noise_scale": "mean noise scale", "critical_batch": "critical batch size"}
    ends = {"": "", "_low": ", from", "_high": ", to"}
    return [
        *(alt.Tooltip(f"{name}:N") for name in ("domain", "task", "goal", "unit")),
        *(
            alt.Tooltip(f"{name}{end}:Q", title=f"{title}{word}", format=",.3~r")
            for name, title in titles.items()
            for end, word in ends.items()
        ),
    ]


def _diagonals(ends: pd.Series, tables: Tables) -> list[alt.Chart]:
    """Where B_crit is B_simple, and three times more or less."""
    known = ends[(ends > 0) & (ends < math.inf)].astype(float)
    across = [known.min() / 10, known.max() * 10]
    lines = []
    for factor, dash in ((1.0, [1, 0]), (3.0, [2, 3]), (1 / 3, [2, 3])):
        line = pd.DataFrame({"noise_scale": across, "critical_batch": [factor * value for value in across]})
        drawn = alt.Chart(tables.add(line, list(_FIELDS))).mark_line(
            color="var(--guide)", strokeWidth=1.2, strokeDash=dash, clip=True, tooltip=False
        )
        lines.append(drawn.encode(x="noise_scale:Q", y="critical_batch:Q"))
    return lines
