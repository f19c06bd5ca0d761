"""The chart of the temperature experiment, after Figure 15 of McCandlish et al. 2018."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.report.data import Tables
from rl_scaling.report.theme import Figure, count_axis, legend, log_axis
from rl_scaling.validation.temperature import TemperatureRun

_COLOURS = {
    "learning-rate": "var(--critical)",
    "batch-size": "var(--noise)",
    "both": "var(--good)",
}


def temperature_figure(runs: Sequence[TemperatureRun]) -> Figure:
    """The running noise scale over updates, a line for each way of changing the temperature, beside 1 / T."""
    tables = Tables()
    curves = pd.concat([run.curve.assign(what=run.what) for run in runs], ignore_index=True)
    expected = pd.concat([_expected(run) for run in runs], ignore_index=True)
    values = pd.concat([curves["b_simple"], curves["low"], expected["b_simple"]])
    x = count_axis(alt.X, "updates", "updates since the network was trained")
    y = log_axis(alt.Y, "b_simple", "noise scale (examples, log scale)", values[values > 0].quantile([0.01, 1]))
    means = pd.concat([_means(run) for run in runs], ignore_index=True)
    names = [run.what for run in runs]
    scale = alt.Scale(domain=names, range=[_COLOURS[name] for name in names])
    colour = alt.Color("what:N", scale=scale, legend=legend("changed", entry_width=110))
    band = y.copy()
    band.shorthand = "low:Q"
    resolved = curves[np.isfinite(curves["high"])]
    bounds = curves[curves["b_simple"].isna() & (curves["low"] > 0)]
    columns = ["what", "phase", "updates", "b_simple", "low", "high"]
    layers = [
        alt.Chart(tables.add(resolved, columns))
        .mark_rule(opacity=0.25, strokeWidth=3, clip=True)
        .encode(x=x, y=band, y2="high:Q", color=colour),
        alt.Chart(tables.add(resolved, columns))
        .mark_point(size=22, filled=True, clip=True)
        .encode(x=x, y=y, color=colour),
        alt.Chart(tables.add(bounds, columns))
        .mark_point(shape="triangle-up", size=30, opacity=0.6, clip=True)
        .encode(x=x, y=band, color=colour),
        alt.Chart(tables.add(means, ["what", "phase", "updates", "b_simple"]))
        .mark_line(strokeWidth=3.5)
        .encode(x=x, y=y, color=colour, detail="phase:N"),
        alt.Chart(tables.add(expected, ["what", "phase", "updates", "b_simple"]))
        .mark_line(strokeDash=[5, 4], strokeWidth=1.5, color="var(--ink)")
        .encode(x=x, y=y, detail=["what:N", "phase:N"]),
    ]
    caption = (
        "Points: running estimate with its 95 % interval; triangles: not resolved, the noise scale is at least this. "
        "Thick: the whole second half of a phase. Dashed: the first phase's noise scale times its temperature over the "
        "present one."
    )
    return Figure("temperature", "The noise scale follows the temperature", caption, alt.layer(*layers), tables)


def _means(run: TemperatureRun) -> pd.DataFrame:
    """What the measured half of each phase gave, where it is resolved."""
    return _levels(run, 0.5, [phase.estimate.b_simple for phase in run.phases])


def _expected(run: TemperatureRun) -> pd.DataFrame:
    first = run.phases[0]
    unit = first.estimate.b_simple * first.temperature
    return _levels(run, 0.0, [unit / phase.temperature for phase in run.phases])


def _levels(run: TemperatureRun, start: float, values: Sequence[float]) -> pd.DataFrame:
    """Two ends of a level line for each phase, from the share `start` of it on."""
    third = int(run.curve["updates"].iloc[-1]) / len(run.phases)
    rows = [
        {"what": run.what, "phase": phase.name, "updates": int((place + end) * third), "b_simple": value}
        for place, (phase, value) in enumerate(zip(run.phases, values, strict=True))
        for end in (start, 1.0)
    ]
    return pd.DataFrame(rows).dropna()
