"""The critical batch size beside the gradient noise scale, and the noise scale over training."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.report.data import Tables
from rl_scaling.report.learning import batch_colour, run_lines
from rl_scaling.report.numbers import count_of, percent
from rl_scaling.report.series import Series, thin
from rl_scaling.report.theme import Figure, count_axis, legend, log_axis
from rl_scaling.report.words import Words, words_of

TRIANGLES_PER_RUN = 16
DODGE = 4  # pixels, so that the two marks of a goal do not hide each other
CRITICAL = "critical batch size (fit)"
SIMPLE = "simple noise scale (measured)"
_ENDS = {"y": alt.Y("low:Q"), "y2": "high:Q"}
_COLUMNS = {
    CRITICAL: ("critical_batch", "critical_batch_low", "critical_batch_high"),
    SIMPLE: ("noise_scale", "noise_scale_low", "noise_scale_high"),
}


def _positive(values: pd.Series) -> pd.Series:
    """Values a logarithmic axis can hold; the others become NaN."""
    numbers = values.astype(float)
    return numbers.where(np.isfinite(numbers) & (numbers > 0))


def batch_sizes_by_goal(fits: pd.DataFrame) -> pd.DataFrame:
    """Both batch sizes of every goal in one long table.

    Returns:
        Columns goal, what, value, low, high, bound ("interval", "at least", "at most" or ""), at; one row for each
        goal and quantity of which something is known. Values are in the task's unit; NaN where not known.
    """
    parts = []
    for what, (value, low, high) in _COLUMNS.items():
        part = pd.DataFrame({"goal": fits["goal"], "what": what, "value": _positive(fits[value])})
        part["low"], part["high"] = _positive(fits[low]), _positive(fits[high])
        has_low, has_high, has_value = (part[name].notna() for name in ("low", "high", "value"))
        kinds = [has_low & has_high, has_low & ~has_value, has_high & ~has_value]
        part["bound"] = np.select(kinds, ["interval", "at least", "at most"], "")
        part["at"] = np.select(kinds[1:], [part["low"], part["high"]], part["value"])
        part["bound"] = part["bound"].where(has_value | (part["bound"] != "interval"), "interval only")
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table[table[["value", "low", "high"]].notna().any(axis=1)].reset_index(drop=True)


def critical_batch_figure(fits: pd.DataFrame, runs: int) -> Figure | None:
    """B_crit and B_simple against the goal; None where neither is known for any goal."""
    table = batch_sizes_by_goal(fits)
    if table.empty:
        return None
    tables, words = Tables(), words_of(fits)
    columns = ["goal", "what", "value", "low", "high", "bound", "at"]
    known = pd.concat([table[name] for name in ("at", "low", "high")])
    y = log_axis(alt.Y, "at", f"{words.unit} per update (log scale)", known)
    x = _goal_axis(fits["goal"], words)
    domain = [CRITICAL, SIMPLE]
    key = legend("", entry_width=200)
    colour = alt.Color("what:N", scale=alt.Scale(domain=domain, range=["var(--critical)", "var(--noise)"]), legend=key)
    shape = alt.Shape("what:N", scale=alt.Scale(domain=domain, range=["circle", "diamond"]), legend=key)
    tooltip = [
        alt.Tooltip("what:N", title="what"),
        alt.Tooltip("goal:Q", title=words.goal),
        alt.Tooltip("value:Q", title=f"value ({words.unit})", format=",.3~r"),
        alt.Tooltip("low:Q", title="interval from", format=",.3~r"),
        alt.Tooltip("high:Q", title="to", format=",.3~r"),
        alt.Tooltip("bound:N", title="known"),
    ]
    layers: list[alt.Chart] = []
    for place, what in enumerate(domain):
        for part, mark, ends in _marks(table[table["what"] == what], shape):
            if len(part):
                moved = mark.copy()
                moved.xOffset = DODGE * (2 * place - 1)
                chart = alt.Chart(tables.add(part, columns), mark=moved).encode(x=x, y=y, color=colour, tooltip=tooltip)
                layers.append(chart.encode(**ends))
    caption = (
        f"Bars: {percent(fits)} intervals. Arrows: only a bound is known (pointing up: at least "
        f"this). The noise scale of a goal is pooled over the front's runs on their way to it. "
        f"From {count_of(runs, 'run')}."
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


def noise_over_examples_figure(series: Series, pooled: pd.DataFrame) -> Figure | None:
    """The noise scale against examples (frames); None where it was never measured.

    Args:
        series: the runs of one task, whose running estimates are drawn thin where rows hold any.
        pooled: what `rl_scaling.analysis.noise_over_training` makes of them, drawn thick with its intervals.
    """
    measured = series.curves[series.curves["noise_scale_low"].notna() | series.curves["noise_scale"].notna()]
    if measured.empty and not pooled["noise_scale_low"].notna().any():
        return None
    positive = series.curves.assign(noise_scale=_positive(series.curves["noise_scale"]))
    drawn = Series(runs=series.runs, rows=series.rows, curves=positive, left_out=series.left_out)
    words = words_of(series.runs)
    x = count_axis(alt.X, "examples", words.counted)
    known = pd.concat(
        [
            positive["noise_scale"],
            *(_positive(table["noise_scale_low"]) for table in (measured, pooled)),
            _positive(pooled["noise_scale"]),
        ]
    )
    y = log_axis(alt.Y, "noise_scale", f"noise scale ({words.unit}, log scale)", known.quantile([0.005, 1]))
    low = y.copy()
    low.shorthand = "noise_scale_low:Q"
    chosen = alt.selection_point(name="chosen", fields=["batch_size"], bind="legend")
    tables = Tables()
    layers = [
        *run_lines(drawn, "noise_scale", x, y, chosen, tables, strength=0.5),
        *_unresolved(series, x, low, chosen, tables),
        *_pooled(pooled, x, y, words, tables),
    ]
    caption = _noise_caption(measured, positive, bool(pooled["noise_scale"].notna().any()))
    chart = alt.layer(*layers).add_params(chosen)
    return Figure(f"noise-scale-over-{words.unit}", "Noise scale while training", caption, chart, tables)


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
    names = ["noise_scale", "noise_scale_low", "noise_scale_high"]
    table = pooled.assign(**{name: _positive(pooled[name]) for name in names})
    table["examples"] = (table["bin_low"] + table["bin_high"]) / 2
    table = table.dropna(subset=["noise_scale_low"])
    tooltip = [
        alt.Tooltip("examples:Q", title=f"{words.unit}, about", format=",.3~r"),
        alt.Tooltip("noise_scale:Q", title=f"pooled noise scale ({words.unit})", format=",.3~r"),
        alt.Tooltip("noise_scale_low:Q", title="interval from", format=",.3~r"),
        alt.Tooltip("noise_scale_high:Q", title="to", format=",.3~r"),
        alt.Tooltip("measurements:Q", title="measurements", format=","),
    ]
    low = y.copy()
    low.shorthand = "noise_scale_low:Q"
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
        alt.Chart(tables.add(part, ["examples", *names, "measurements"]), mark=mark).encode(
            x=x, tooltip=tooltip, **place
        )
        for part, mark, place in layers
        if len(part)
    ]


def _unresolved(series: Series, x: alt.X, y: alt.Y, chosen: alt.Parameter, tables: Tables) -> list[alt.Chart]:
    """Lower bounds of the best runs where there is no value."""
    best = set(series.runs.loc[series.runs["best"], "run"])
    curves = series.curves.assign(noise_scale_low=_positive(series.curves["noise_scale_low"]))
    rows = curves[curves["run"].isin(best) & curves["noise_scale"].isna() & curves["noise_scale_low"].notna()]
    if rows.empty:
        return []
    thinned = pd.concat([part.iloc[thin(len(part), TRIANGLES_PER_RUN)] for _, part in rows.groupby("run")])
    words = words_of(series.runs)
    colour = batch_colour(series.runs["batch_size"], words)
    table = thinned.merge(series.runs[["run", "batch_size"]], on="run")
    marks = alt.Chart(tables.add(table, ["batch_size", "examples", "noise_scale_low"])).mark_point(
        shape="triangle-up", size=36, filled=True, clip=True
    )
    tooltip = [
        alt.Tooltip("batch_size:Q", title=f"batch size ({words.unit})", format=","),
        alt.Tooltip("examples:Q", title=words.unit, format=",.4~r"),
        alt.Tooltip("noise_scale_low:Q", title="noise scale at least", format=",.3~r"),
    ]
    return [
        marks.encode(
            x=x,
            y=y,
            color=colour,
            tooltip=tooltip,
            opacity=alt.when(chosen).then(alt.value(0.8)).otherwise(alt.value(0.06)),
        )
    ]
