"""Critical batch size against noise scale, of every goal of every domain, beside published values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from rl_scaling.analysis.agreement import DOMAINS, agreement_rows
from rl_scaling.estimates import columns_of, count_of
from rl_scaling.report.data import Tables
from rl_scaling.report.overview import Overview
from rl_scaling.report.published import SOURCE, published_pairs
from rl_scaling.report.registry import chart
from rl_scaling.report.theme import SERIES_SHAPES, Figure, legend, log_axis, series_colours
from rl_scaling.report.words import percent

PUBLISHED = "published, end of training"
_FIELDS = ("noise_scale", "critical_batch")
_COLUMNS = ["domain", "task", "goal", "unit", *(column for name in _FIELDS for column in columns_of(name))]


def _tables(overview: Overview) -> dict[str, pd.DataFrame]:
    found = {"agreement": agreement_rows(overview.agreements), "scales": overview.scales}
    return found | {"published": published_pairs()}


@chart("overview", tables=_tables)
def agreement_figure(overview: Overview) -> Figure | None:
    """B_crit against B_simple of every goal, and the published pairs; None where no pair was measured."""
    pairs = overview.pairs
    if pairs.empty:
        return None
    renamed = dict(zip(columns_of("noise_scale_mean"), columns_of("noise_scale"), strict=True))
    measured = pairs.drop(columns=[*renamed.values()]).rename(columns=renamed)
    # A loss and a score are told apart by their task: the goal alone is shown as it is written.
    measured = measured.assign(goal=measured["goal"].map("{:g}".format))[_COLUMNS]
    published = published_pairs().assign(domain=PUBLISHED, goal="")[_COLUMNS]
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
        _chart(both, domains, tables := Tables()),
        tables,
        wide=True,
    )


def _chart(both: pd.DataFrame, domains: Sequence[str], tables: Tables) -> alt.LayerChart | alt.FacetChart:
    ends = pd.concat([both[column] for name in _FIELDS for column in columns_of(name)])
    x = log_axis(alt.X, "noise_scale", "mean noise scale (examples, frames or tokens)", ends)
    y = log_axis(alt.Y, "critical_batch", "critical batch size (in the same unit)", ends)
    names = [*domains, PUBLISHED]
    key = legend("", entry_width=190)
    place = [DOMAINS.index(name) for name in domains]
    colours = [*(series_colours(len(DOMAINS))[i] for i in place), "var(--ink-soft)"]
    shapes = [*(SERIES_SHAPES[i] for i in place), "triangle-up"]
    colour = alt.Color("domain:N", scale=alt.Scale(domain=names, range=colours), legend=key)
    shape = alt.Shape("domain:N", scale=alt.Scale(domain=names, range=shapes), legend=key)
    data = alt.Chart(tables.add(both, _COLUMNS)).encode(x=x, y=y, color=colour, tooltip=_tooltip())
    bars = data.mark_rule(opacity=0.35, strokeWidth=1.3, clip=True)
    published = alt.datum.domain == PUBLISHED
    labels = both[both["domain"] == PUBLISHED]
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


def _tooltip() -> list[alt.Tooltip]:
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
