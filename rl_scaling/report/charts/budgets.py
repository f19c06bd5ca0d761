"""Charts of what a fixed budget buys at each batch size (`rl_scaling.analysis.learning_rates`)."""

from __future__ import annotations

import altair as alt
import pandas as pd

from rl_scaling.analysis.learning_rates import QUANTITIES, of_epochs, with_bars
from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.theme import legend, log_axis

_RATE = "effective learning rate, rate / (1 - momentum), log scale"
_DASHES = ([1, 0], [6, 4], [2, 3], [8, 3, 2, 3])
_FEWEST = 3  # points of a curve
_NAMES = {name: name.replace("_", " ") for name in QUANTITIES}


@chart("budgets")
def budget_figures(best: pd.DataFrame) -> list[Figure]:
    """Of every subject and budget the best rate and what it gives by batch size; by epochs where several were tried."""
    figures = []
    for (subject, budget), rows in best.groupby(["subject", "budget"], sort=True):
        if len(rows["batch_size"].unique()) >= _FEWEST:
            stem, title = f"{subject}-{budget}".replace(" ", "-"), f"{subject}, {budget}"
            figures += _pair(rows, "batch_size", "batch size (examples, log scale)", stem, title)
    for (subject, size), rows in of_epochs(best).groupby(["subject", "batch_size"], sort=True):
        if len(rows["epochs"].unique()) >= _FEWEST:
            stem, title = f"{subject}-by-epochs-at-{size}", f"{subject}, batch size {size}"
            figures += _pair(rows, "epochs", "epochs (log scale)", stem, title)
    return figures


def _pair(rows: pd.DataFrame, x: str, x_title: str, stem: str, title: str) -> list[Figure]:
    """Best rates, and what they give."""
    named = with_bars(rows).assign(what=rows["quantity"].map(_NAMES), edge=rows["at_edge"] != "")
    caption = "Bars reach over the rates within a standard error of the best; hollow: at the end of the rates tried."
    figures = [Figure(f"{stem}-rates", f"Best learning rate: {title}", caption, *_rates(named, x, x_title))]
    for quantity in ("training_loss", "validation_accuracy"):
        part = named[named["quantity"] == quantity]
        if len(part):
            drawn = _values(part, x, x_title, quantity)
            caption = (
                f"{_NAMES[quantity].capitalize()} at the rate that is best for it; bars: standard errors of seeds."
            )
            name = f"{stem}-{quantity.replace('_', '-')}"
            figures.append(Figure(name, f"{_NAMES[quantity].capitalize()}: {title}", caption, *drawn))
    return figures


def _colour() -> alt.Color:
    scale = alt.Scale(
        range=["var(--ramp-5-0)", "var(--ramp-5-3)", "var(--ramp-5-1)", "var(--ramp-5-4)", "var(--ramp-5-2)"]
    )
    return alt.Color("optimizer:N", scale=scale, legend=legend("optimiser", entry_width=120))


def _axis(x: str, title: str, rows: pd.DataFrame) -> alt.X:
    """A logarithmic axis whose ticks are the values there are."""
    ticks = sorted(rows[x].unique().tolist())
    return log_axis(alt.X, x, title, ticks).axis(format=",~r", values=ticks)


def _rates(named: pd.DataFrame, x: str, x_title: str) -> tuple[alt.LayerChart | alt.FacetChart, Tables]:
    tables = Tables()
    columns = [x, "optimizer", "what", "effective_rate", "effective_low", "effective_high", "edge"]
    shown = named[named["quantity"] != "validation_loss"]
    data = tables.add(shown, columns)
    base = alt.Chart(data).encode(
        x=_axis(x, x_title, shown),
        color=_colour(),
        strokeDash=alt.StrokeDash(
            "what:N",
            scale=alt.Scale(range=list(_DASHES)),
            legend=legend("best by", entry_width=160, symbolType="stroke", symbolSize=900),
        ),
    )
    y = log_axis(alt.Y, "effective_rate", _RATE, [*shown["effective_low"], *shown["effective_high"]], format=",~r")
    lines = base.mark_line(strokeWidth=2).encode(y=y, detail="what:N")
    bars = base.mark_rule(opacity=0.45).encode(y=alt.Y("effective_low:Q"), y2="effective_high:Q")
    inside, at_edge = (
        base.transform_filter(alt.datum.edge == edge)
        .mark_point(size=60, filled=not edge, fill="var(--surface)" if edge else alt.Undefined, opacity=1)
        .encode(y=y, strokeDash=alt.value([1, 0]))
        for edge in (False, True)
    )
    return alt.layer(lines, bars, inside, at_edge), tables


def _values(part: pd.DataFrame, x: str, x_title: str, quantity: str) -> tuple[alt.LayerChart | alt.FacetChart, Tables]:
    tables, ends = Tables(), [*part["value_low"], *part["value_high"]]
    data = tables.add(part, [x, "optimizer", "value", "value_low", "value_high", "learning_rate"])
    base = alt.Chart(data).encode(x=_axis(x, x_title, part), color=_colour())
    if QUANTITIES[quantity]:
        y = log_axis(alt.Y, "value", f"{_NAMES[quantity]} (log scale)", ends, format=",~g")
    else:
        y = alt.Y("value:Q", title=_NAMES[quantity], scale=alt.Scale(zero=False), axis=alt.Axis(format=".1%"))
    bars = base.mark_rule(opacity=0.45).encode(y=alt.Y("value_low:Q"), y2="value_high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=y)
    points = base.mark_point(size=60, filled=True, opacity=1).encode(y=y)
    return alt.layer(line, bars, points), tables
