"""The tables and sentences of the report."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rl_scaling.analysis.agreement import easiest_first
from rl_scaling.analysis.costs import throughput_by_batch_size
from rl_scaling.analysis.views import goals_in_common
from rl_scaling.estimates import MINUS, Estimate, count_of, duration, interval, number
from rl_scaling.records import PARTS
from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.theme import Words, bounded, percent, words_of

STATUS_WORDS = {
    "done": "finished",
    "stopped": "stopped, nothing left to reach",
    "diverged": "diverged",
    "running": "still running",
    "interrupted": "interrupted",
}
LISTED_RUNS = 400
GAMMA = "\N{GREEK SMALL LETTER GAMMA}"


def _status(status: str, message: str) -> Html:
    kind = {"ok": "good", "not reached": "soft"}.get(status, "warn")
    pill = tag("span", "fitted" if status == "ok" else status, class_=f"pill {kind}")
    return join([pill, " ", tag("span", message, class_="soft")]) if message else pill


def goals_table(fits: pd.DataFrame) -> Html:
    """One row per goal of one task: S_min, E_min, B_crit, B_simple, their intervals and how far to trust them."""
    words, confidence = words_of(fits), f"{percent(fits)} interval"
    reused = bool(fits["noise_scale_reuse_low"].notna().any())
    heads = [
        words.goal.capitalize(),
        join(["S", tag("sub", "min"), " (updates)"]),
        join(["E", tag("sub", "min"), f" ({words.unit})"]),
        join(["B", tag("sub", "crit"), f" ({words.unit}; {confidence})"]),
        join(["B", tag("sub", "simple"), f" since the goal before ({words.unit})"]),
        join(["B", tag("sub", "simple"), f" on the whole way ({words.unit})"]),
        *([f"The same where {words.unit} are used again"] if reused else []),
        "Design effect",
        "Batch sizes",
        "Status",
    ]
    rows = [_goal_row(fit, reused) for fit in easiest_first(fits).to_dict("records")]
    return table(heads, rows, words=[len(heads) - 1])


def _goal_row(fit: dict[Hashable, Any], reused: bool) -> list[object]:
    names = ["critical_batch", "noise_scale", "noise_scale_mean", *(["noise_scale_reuse"] if reused else [])]
    return [
        f"{fit['goal']:g}",
        number(fit["steps_min"]),
        number(fit["examples_min"]),
        *(bounded(Estimate.of(fit, name)) for name in names),
        number(fit["design_effect"], 2),
        int(fit["batch_sizes"]),
        _status(str(fit["status"]), str(fit["message"])),
    ]


def verdict(fits: pd.DataFrame, frames_each: float) -> Html:
    """What the fits of one task say, in a sentence or two, for readers who stop here.

    Args:
        fits: the task's rows of `SweepFit.fits`.
        frames_each: frames each environment adds to a batch; NaN where the runs differ or have no
            environments.
    """
    known = fits[fits["status"] == "ok"]
    reached = fits[fits["status"] != "not reached"]
    low, high = (reached[f"critical_batch_{end}"].astype(float) for end in ("low", "high"))
    bounded = reached[(low > 0) | np.isfinite(high)]
    if len(known):
        words = _answer(easiest_first(known), frames_each)
    elif len(bounded):
        words = _bound(easiest_first(bounded).iloc[-1], words_of(bounded))
    elif len(reached):
        words = ["Goals were reached, but the critical batch size is not resolved; the table says what is missing."]
    elif len(fits):
        words = ["No run reached a goal, so there is no front and no critical batch size yet."]
    else:
        words = ["No goals were given, so there is no front and no critical batch size."]
    return tag("p", *words, class_="verdict")


def _bound(fit: pd.Series, words: Words) -> list[object]:
    bound = bounded(Estimate(math.nan, fit["critical_batch_low"], fit["critical_batch_high"]), 2)
    return [
        f"To reach a {words.quantity} of {fit['goal']:g}, the critical batch size is ",
        tag("strong", bound, f" {words.unit} per update"),
        f". It is not resolved any better by these runs: {fit['message']}.",
    ]


def _answer(known: pd.DataFrame, frames_each: float) -> list[object]:
    fit, first, words = known.iloc[-1], known.iloc[0], words_of(known)
    batch = fit["critical_batch"]
    parts: list[object] = [
        f"To reach a {words.quantity} of {fit['goal']:g}, the critical batch size is ",
        tag("strong", f"{number(batch, 2)} {words.unit} per update"),
        f" ({percent(known)} interval {interval(fit['critical_batch_low'], fit['critical_batch_high'], 2)})",
    ]
    if math.isfinite(frames_each) and frames_each > 0:
        parts.append(
            f", about {number(max(1, round(batch / frames_each)), 2)} environments with {frames_each:g} frames each"
        )
    if len(known) > 1:
        parts.append(f"; for a {words.quantity} of {first['goal']:g} it is {number(first['critical_batch'], 2)}")
    parts.append(
        f". At that size a run takes twice the fewest possible updates and twice the fewest possible {words.unit}. "
        f"Well below it, {words.larger_batches} cut the updates at little cost in {words.unit}; well above it, they "
        f"mostly use up {words.unit}."
    )
    return parts


def throughput_table(runs: pd.DataFrame) -> Html:
    """Speed and cost per batch size; `runs` has one row per run."""
    unit = words_of(runs).unit
    heads = [
        f"Batch size ({unit})",
        "Environments",
        "Runs",
        f"{unit.capitalize()}/s per run, median (range)",
        "Updates/s per run",
        f"{unit.capitalize()} in total",
        "Time",
    ]
    rows = [
        [
            number(row["batch_size"], 12),
            number(row["num_envs"], 12),
            f"{row['runs']:,}",
            Estimate.of(row, "examples_per_second").text(),
            number(row["updates_per_second"]),
            number(row["examples"]),
            duration(row["wall_seconds"]),
        ]
        for row in throughput_by_batch_size(runs).to_dict("records")
    ]
    return table(heads, rows)


def run_list(runs: pd.DataFrame) -> Html:
    """Every run in one line, behind a fold; the first `LISTED_RUNS` of them."""
    units, quantities = (" or ".join(runs[name].unique()).capitalize() for name in ("unit", "quantity"))
    ends = f"{quantities.replace('_', ' ')} at the end"
    heads = ["Run", "Task", "Batch size", "Learning rate", "Seed", units, ends, "Ended", "Note"]
    rows = [
        [
            tag("code", run["run_id"]),
            run["task"],
            f"{int(run['batch_size']):,}",
            f"{run['learning_rate']:.3g} {run['setting']}".strip(),
            run["seed"],
            number(float(run["examples"])),
            number(run["final_score"]),
            STATUS_WORDS.get(run["status"], run["status"]),
            run["note"],
        ]
        for _, run in runs.head(LISTED_RUNS).iterrows()
    ]
    more = f" (the first {LISTED_RUNS})" if len(runs) > LISTED_RUNS else ""
    summary = tag("summary", f"All {count_of(len(runs), 'run')}{more}")
    return tag("details", summary, table(heads, rows, words=[0, 1, 7, 8]))


def facts(pairs: Sequence[tuple[str, object]]) -> Html:
    """Names and what they are, as a list."""
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in pairs), class_="facts")


def flat_provenance(provenance: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested provenance as one level with dotted names."""
    flat: dict[str, str] = {}
    for name, value in provenance.items():
        if isinstance(value, Mapping):
            flat |= flat_provenance(value, f"{prefix}{name}.")
        elif value is not None and value != "":
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return flat


DIFFERENT_VALUES = 4


def provenance_facts(provenances: Sequence[Mapping[str, Any]]) -> list[tuple[str, object]]:
    """What is known about machines and versions; where runs differ, each value with its number of runs."""
    flat = [flat_provenance(p) for p in provenances]
    names = dict.fromkeys(name for one in flat for name in one)
    pairs: list[tuple[str, object]] = []
    for name in names:
        counts = pd.Series([one[name] for one in flat if name in one]).value_counts()
        if len(counts) == 1 and counts.iloc[0] == len(flat):
            pairs.append((name, counts.index[0]))
            continue
        shown = [f"{value} ({count_of(int(n), 'run')})" for value, n in counts.head(DIFFERENT_VALUES).items()]
        rest = len(counts) - DIFFERENT_VALUES
        pairs.append((name, "; ".join(shown) + (f"; {rest} more values" if rest > 0 else "")))
    return pairs


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
            row["setting"],
            number(row["updates"]),
            number(row["examples"]),
            number(row["batch_size"]),
            Estimate.of(row, "gamma_observed").text(2),
            Estimate.of(row, "gamma_predicted").text(2),
            Estimate.of(of_goal.loc[row["goal"]].to_dict(), "gamma_predicted").text(2),
        ]
        for row in adaptive.sort_values(["goal", "setting"]).to_dict("records")
    ]
    caption = (
        f"{GAMMA} = (S/S_min {MINUS} 1)(E/E_min {MINUS} 1), with S_min and E_min fitted to the fixed batch sizes, for "
        f"which it is 1: the less, the fewer updates and {words.unit} an adaptive batch needs. Predicted: "
        "(∫√B_simple ds)² / (S_min E_min) from the noise scale over training (McCandlish et al. 2018, D.5). The "
        f"interval of {GAMMA} observed has the errors of the fit in it, not the scatter of the run's own seed."
    )
    return join([table(heads, rows, words=[1]), tag("p", caption, class_="soft")])


def frozen_table(frozen: pd.DataFrame) -> Html:
    """Noise scales of weights that were kept: one row for each measurement.

    Args:
        frozen: the task's rows of `SweepFit.frozen`, one or more.
    """
    heads = [
        "Weights",
        "Seed",
        "Frames measured with",
        join(["B", tag("sub", "simple"), f" (frames; {percent(frozen)} interval)"]),
        *(f"of the {part} alone" for part in PARTS),
        "Design effect",
        join(["B", tag("sub", "noise"), " (frames)"]),
    ]
    names = ["noise_scale", *(f"{part}_noise_scale" for part in PARTS)]
    rows = [
        [
            row["place"],
            int(row["seed"]),
            number(row["frames"]),
            *(bounded(Estimate.of(row, name), 2) for name in names),
            number(row["design_effect"], 2),
            bounded(Estimate.of(row, "hessian_noise_scale"), 2),
        ]
        for row in frozen.to_dict("records")
    ]
    caption = (
        "Nothing was learned while this was measured, so that every frame tells of the same gradient; the frames are "
        "not among those of the runs. The terms of the gradient are weighted as in the loss. "
        "B_noise = tr(HΣ) / (GᵀHG) by products with the Hessian of the algorithm's own loss."
    )
    return join([table(heads, rows, words=[0]), tag("p", caption, class_="soft")])


def compared_table(fits: pd.DataFrame, problems: Mapping[str, str]) -> Html | None:
    """Updates, frames and batch sizes of every goal that several tasks of one problem reached; None without such.

    Args:
        fits: `SweepFit.fits` of all tasks.
    """
    parts = goals_in_common(fits[fits["status"] != "not reached"], problems)
    if not parts:
        return None
    rows = [
        [
            f"{fit['goal']:g}",
            fit["task"],
            number(fit["steps_min"]),
            number(fit["examples_min"]),
            *(bounded(Estimate.of(fit, name)) for name in ("critical_batch", "noise_scale")),
        ]
        for part in parts
        for fit in part.sort_values(["goal", "task"]).to_dict("records")
    ]
    unit = words_of(fits).unit
    heads = [
        "Goal",
        "Task",
        join(["S", tag("sub", "min"), " (updates)"]),
        join(["E", tag("sub", "min"), f" ({unit})"]),
        join(["B", tag("sub", "crit"), f" ({unit} per update)"]),
        join(["B", tag("sub", "simple"), f" ({unit} per update)"]),
    ]
    return table(heads, rows, words=[1])
