"""The gradient noise scale over training, and the batch size of runs that followed it."""

from __future__ import annotations

from dataclasses import replace

import altair as alt
import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.views import Series, positive, thin
from rl_scaling.estimates import columns_of, count_of
from rl_scaling.report.charts.learning_curves import batch_colour, run_lines
from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.theme import (
    Words,
    count_axis,
    dimmed,
    legend,
    log_axis,
    named_colour,
    on_same_axis,
    ramp,
    tooltips,
)

TRIANGLES_PER_RUN = 16
_NOISE = list(columns_of("noise_scale"))


@chart("task")
def noise_over_examples_figure(view: TaskView) -> Figure | None:
    """The noise scale against examples (frames); None where it was never measured.

    The running estimates of the runs are drawn thin where rows hold any, the pooled estimate thick with its intervals.
    """
    series, pooled, words = view.fixed, view.noise, Words(view.measure)
    measured = series.curves[series.curves["noise_scale_low"].notna() | series.curves["noise_scale"].notna()]
    if measured.empty and not pooled["noise_scale_low"].notna().any():
        return None
    resolved = series.curves.assign(noise_scale=positive(series.curves["noise_scale"]))
    drawn = replace(series, curves=resolved)
    x = count_axis(alt.X, "examples", words.counted)
    known = pd.concat(
        [
            resolved["noise_scale"],
            *(positive(table["noise_scale_low"]) for table in (measured, pooled)),
            positive(pooled["noise_scale"]),
        ]
    )
    y = log_axis(alt.Y, "noise_scale", f"noise scale ({words.unit}, log scale)", known.quantile([0.005, 1]))
    chosen = alt.selection_point(name="chosen", fields=["batch_size"], bind="legend")
    tables = Tables()
    layers = [
        *run_lines(drawn, words, "noise_scale", x, y, chosen, tables, strength=0.5),
        *_unresolved(series, words, x, on_same_axis(y, "noise_scale_low"), chosen, tables),
        *_pooled(pooled, x, y, words, tables),
    ]
    caption = _noise_caption(measured, resolved, bool(pooled["noise_scale"].notna().any()))
    drawing = alt.layer(*layers).add_params(chosen)
    return Figure(f"noise-scale-over-{words.unit}", "Noise scale while training", caption, drawing, tables)


def _noise_caption(measured: pd.DataFrame, curves: pd.DataFrame, pooled: bool) -> str:
    if measured.empty:
        return (
            "B_simple = tr Σ / |G|² pooled over the best learning rates, with its intervals; triangles: not resolved, "
            "at least this."
        )
    runs = measured["run"].nunique()
    never = runs - curves.dropna(subset=["noise_scale"])["run"].nunique()
    parts = [
        "Black: B_simple pooled over the best learning rates, with its intervals." if pooled else "",
        f"Thin lines: the running estimate of B_simple = tr Σ / |G|² in {count_of(runs, 'run')}; stronger: the best "
        "learning rate of each batch size.",
        "Triangles: not yet resolved, the noise scale is at least this."
        if measured["noise_scale"].isna().any()
        else "",
        f"In {count_of(never, 'run')} it was never resolved." if never else "",
    ]
    return " ".join(filter(None, parts))


def _pooled(pooled: pd.DataFrame, x: alt.X, y: alt.Y, words: Words, tables: Tables) -> list[alt.Chart]:
    """The pooled noise scale: a line with bars, and a triangle where only a lower bound is known."""
    table = pooled.assign(**{name: positive(pooled[name]) for name in _NOISE})
    table["examples"] = (table["bin_low"] + table["bin_high"]) / 2
    table = table.dropna(subset=["noise_scale_low"])
    titles = {"examples": "{unit}, about", "noise_scale": "pooled noise scale ({unit})"}
    tooltip = tooltips(words, table, "examples", *_NOISE, "measurements", **titles)
    low = on_same_axis(y, "noise_scale_low")
    line = alt.MarkDef(
        "line", strokeWidth=2.5, color="var(--ink)", point=alt.OverlayMarkDef(color="var(--ink)", size=45)
    )
    bars = alt.MarkDef("rule", strokeWidth=2, opacity=0.45, color="var(--ink)", clip=True)
    triangles = alt.MarkDef(
        "point", shape="triangle-up", size=50, filled=True, opacity=0.8, color="var(--ink)", clip=True
    )
    known = table["noise_scale"].notna()
    layers = [
        (table[known], bars, {"y": low, "y2": "noise_scale_high:Q"}),
        (table if known.any() else table.head(0), line, {"y": y}),
        (table[~known], triangles, {"y": low}),
    ]
    return [
        alt.Chart(tables.add(part, ["examples", *_NOISE, "measurements"]), mark=mark).encode(
            x=x, tooltip=tooltip, **place
        )
        for part, mark, place in layers
        if len(part)
    ]


def _unresolved(
    series: Series, words: Words, x: alt.X, y: alt.Y, chosen: alt.Parameter, tables: Tables
) -> list[alt.Chart]:
    """Lower bounds of the best runs where there is no value."""
    best = set(series.runs.loc[series.runs["best"], "run"])
    curves = series.curves.assign(noise_scale_low=positive(series.curves["noise_scale_low"]))
    rows = curves[curves["run"].isin(best) & curves["noise_scale"].isna() & curves["noise_scale_low"].notna()]
    if rows.empty:
        return []
    thinned = pd.concat([part.iloc[thin(len(part), TRIANGLES_PER_RUN)] for _, part in rows.groupby("run")])
    colour = batch_colour(series.runs["batch_size"], words)
    table = thinned.merge(series.runs[["run", "batch_size"]], on="run")
    marks = alt.Chart(tables.add(table, ["batch_size", "examples", "noise_scale_low"])).mark_point(
        shape="triangle-up", size=36, filled=True, clip=True
    )
    columns = ("batch_size", "examples", "noise_scale_low")
    tooltip = tooltips(words, table, *columns, noise_scale_low="noise scale at least")
    return [marks.encode(x=x, y=y, color=colour, tooltip=tooltip, opacity=dimmed(chosen, 0.8, 0.06))]


_POINTS_PER_RUN = 200


@chart("task", tables=lambda overview: {"adaptive": overview.fit.adaptive})
def adaptive_batch_figure(view: TaskView) -> Figure | None:
    """The batch size of adaptive runs against examples; None where there is no such run."""
    series, words = view.series, Words(view.measure)
    runs = series.runs[series.runs["adaptive"]]
    rows = series.rows[series.rows["run"].isin(set(runs["run"])) & (series.rows["current_batch_size"] > 0)]
    if rows.empty:
        return None
    tables = Tables()
    kept = pd.concat([part.iloc[thin(len(part), _POINTS_PER_RUN)] for _, part in rows.groupby("run")])
    settings = sorted(kept["setting"].unique())
    lines = alt.Chart(
        tables.add(kept, ["run", "setting", "seed", "examples", "current_batch_size", "noise_scale"])
    ).mark_line(interpolate="step-after", strokeWidth=2)
    title = f"batch size ({words.unit} per update, log scale)"
    encoded = lines.encode(
        x=count_axis(alt.X, "examples", words.counted),
        y=log_axis(alt.Y, "current_batch_size", title, kept["current_batch_size"]),
        detail="run:N",
        color=named_colour("setting", settings, ramp(len(settings)), legend("adaptive batch", entry_width=160)),
        tooltip=tooltips(
            words, kept, "setting", "seed", "examples", "current_batch_size", "noise_scale", setting="adaptive batch"
        ),
    )
    caption = (
        f"B = sqrt(r B_simple), with r the price of an update in {words.unit}, {words.batch_steps} and within bounds. "
        f"{count_of(len(runs), 'run')}."
    )
    return Figure("adaptive-batch-size", "A batch that follows the noise scale", caption, encoded, tables)
