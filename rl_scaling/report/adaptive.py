"""Runs whose batch size followed the noise scale: their batch while training, and gamma beside its prediction."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import pandas as pd

from rl_scaling.report.data import Tables
from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.numbers import DASH, MINUS, count_of, interval, number, percent
from rl_scaling.report.series import Series, thin
from rl_scaling.report.theme import Figure, count_axis, legend, log_axis, ramp
from rl_scaling.report.words import Words, words_of

GAMMA = "\N{GREEK SMALL LETTER GAMMA}"
_POINTS_PER_RUN = 200


def steered_by(setting: str) -> str:
    """What tells adaptive runs apart, without the word that all of them have.

    >>> steered_by("adaptive r=300 max_envs=64")
    'r=300 max_envs=64'
    """
    return setting.removeprefix("adaptive ")


def adaptive_points(adaptive: pd.DataFrame, words: Words, tables: Tables) -> list[alt.Chart]:
    """Diamonds on the axes of the fronts: updates and examples of adaptive runs at each goal."""
    if adaptive.empty:
        return []
    data = adaptive.assign(setting=adaptive["setting"].map(steered_by))
    tooltip = [
        alt.Tooltip("goal:Q", title=words.goal),
        alt.Tooltip("setting:N", title="adaptive batch"),
        alt.Tooltip("batch_size:Q", title=f"mean batch size ({words.unit})", format=",.3~r"),
        alt.Tooltip("updates:Q", title="updates to the goal", format=",.4~r"),
        alt.Tooltip("examples:Q", title=f"{words.unit} to the goal", format=",.4~r"),
        alt.Tooltip("gamma_observed:Q", title="gamma", format=".2f"),
        alt.Tooltip("gamma_predicted:Q", title="gamma predicted", format=".2f"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    columns = ["goal", "setting", "batch_size", "updates", "examples", "gamma_observed", "gamma_predicted", "seeds"]
    marks = alt.Chart(tables.add(data, columns)).mark_point(
        shape="diamond", size=110, filled=True, stroke="var(--ink)", strokeWidth=1.5, opacity=1
    )
    ends = data.loc[data.groupby(["setting", "learning_rate"])["goal"].idxmax()]
    labels = alt.Chart(tables.add(ends, columns)).mark_text(
        color="var(--ink-soft)", fontSize=11, align="right", baseline="top", dx=-8, dy=3, tooltip=False
    )
    place: dict[str, Any] = {"x": "updates:Q", "y": "examples:Q"}
    return [marks.encode(**place, color="goal:O", tooltip=tooltip), labels.encode(**place, text="setting:N")]


def adaptive_batch_figure(series: Series) -> Figure | None:
    """The batch size of adaptive runs against examples; None where there is no such run."""
    runs = series.runs[series.runs["adaptive"]]
    rows = series.rows[series.rows["run"].isin(set(runs["run"])) & (series.rows["current_batch_size"] > 0)]
    if rows.empty:
        return None
    tables, words = Tables(), words_of(series.runs)
    kept = pd.concat([part.iloc[thin(len(part), _POINTS_PER_RUN)] for _, part in rows.groupby("run")])
    kept = kept.assign(setting=kept["setting"].map(steered_by))
    settings = sorted(kept["setting"].unique())
    chart = alt.Chart(
        tables.add(kept, ["run", "setting", "seed", "examples", "current_batch_size", "noise_scale"])
    ).mark_line(interpolate="step-after", strokeWidth=2)
    title = f"batch size ({words.unit} per update, log scale)"
    encoded = chart.encode(
        x=count_axis(alt.X, "examples", words.counted),
        y=log_axis(alt.Y, "current_batch_size", title, kept["current_batch_size"]),
        detail="run:N",
        color=alt.Color(
            "setting:N",
            scale=alt.Scale(domain=settings, range=ramp(len(settings))),
            legend=legend("adaptive batch", entry_width=160),
        ),
        tooltip=[
            alt.Tooltip("setting:N", title="adaptive batch"),
            alt.Tooltip("seed:Q", title="seed"),
            alt.Tooltip("examples:Q", title=words.unit, format=",.4~r"),
            alt.Tooltip("current_batch_size:Q", title=f"batch size ({words.unit})", format=","),
            alt.Tooltip("noise_scale:Q", title=f"noise scale ({words.unit})", format=",.3~r"),
        ],
    )
    caption = (
        f"B = sqrt(r B_simple), with r the price of an update in {words.unit}, in steps of whole groups of "
        f"environments and within bounds. {count_of(len(runs), 'run')}."
    )
    return Figure("adaptive-batch-size", "A batch that follows the noise scale", caption, encoded, tables)


def gamma_table(adaptive: pd.DataFrame, fits: pd.DataFrame) -> Html:
    """What adaptive runs needed for each goal, and gamma of D.5: observed, and predicted in two ways.

    Args:
        adaptive: the task's rows of `SweepFit.adaptive`, one or more.
        fits: the task's rows of `SweepFit.fits`.
    """
    words, confidence = words_of(fits), percent(fits)
    heads = [
        words.goal.capitalize(),
        "Adaptive batch",
        "Updates",
        words.unit.capitalize(),
        f"Mean batch ({words.unit})",
        f"{GAMMA} observed ({confidence})",
        f"{GAMMA} predicted by its own noise scale ({confidence})",
        f"{GAMMA} predicted by that of the fixed batches ({confidence})",
    ]
    of_goal = fits.set_index("goal")
    rows = [
        [
            f"{row['goal']:g}",
            steered_by(row["setting"]),
            number(row["updates"]),
            number(row["examples"]),
            number(row["batch_size"]),
            _gamma(row, "gamma_observed"),
            _gamma(row, "gamma_predicted"),
            _gamma(of_goal.loc[row["goal"]], "gamma_predicted"),
        ]
        for _, row in adaptive.sort_values(["goal", "setting"]).iterrows()
    ]
    caption = (
        f"{GAMMA} = (S/S_min {MINUS} 1)(E/E_min {MINUS} 1), with S_min and E_min fitted to the fixed batch sizes, for "
        f"which it is 1: the less, the fewer updates and {words.unit} an adaptive batch needs. Predicted: "
        "(∫√B_simple ds)² / (S_min E_min) from the noise scale over training (McCandlish et al. 2018, D.5). The "
        f"interval of {GAMMA} observed has the errors of the fit in it, not the scatter of the run's own seed."
    )
    return join([table(heads, rows, words=[1]), tag("p", caption, class_="soft")])


def _gamma(row: pd.Series, name: str) -> str:
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if not math.isfinite(value):
        return DASH
    return f"{number(value, 2)} ({interval(low, high, 2)})" if math.isfinite(low + high) else number(value, 2)
