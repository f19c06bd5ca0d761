"""The tables and sentences of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.numbers import DASH, count_of, duration, interval, number, percent
from rl_scaling.report.words import Words, words_of

STATUS_WORDS = {
    "done": "finished",
    "stopped": "stopped early",
    "diverged": "diverged",
    "running": "still running",
    "interrupted": "interrupted",
}
LISTED_RUNS = 400


def with_interval(value: float, low: float, high: float, digits: int = 3) -> Html:
    """A value with its interval if it has one, or "at least ...", "at most ...", or a dash where nothing is known."""
    known_low = math.isfinite(low) and low > 0
    known_high = math.isfinite(high)
    if math.isfinite(value) and low == high:
        return join([number(value, digits)])
    if math.isfinite(value):
        return join([number(value, digits), " ", tag("span", f"({interval(low, high, digits)})", class_="soft")])
    if known_low and known_high:
        return join([interval(low, high, digits)])
    if known_low:
        return join([f"at least {number(low, digits)}"])
    return join([f"at most {number(high, digits)}" if known_high else DASH])


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
    rows = [_goal_row(fit, reused) for _, fit in easiest_first(fits).iterrows()]
    return table(heads, rows, words=[len(heads) - 1])


def easiest_first(fits: pd.DataFrame) -> pd.DataFrame:
    """The goals of one task in the order in which training reaches them."""
    return fits.sort_values("goal", ascending=words_of(fits).direction == "max")


def _goal_row(fit: pd.Series, reused: bool) -> list[object]:
    of_reuse = [fit[f"noise_scale_reuse{end}"] for end in ("", "_low", "_high")]
    return [
        f"{fit['goal']:g}",
        number(fit["steps_min"]),
        number(fit["examples_min"]),
        with_interval(fit["critical_batch"], fit["critical_batch_low"], fit["critical_batch_high"]),
        with_interval(fit["noise_scale"], fit["noise_scale_low"], fit["noise_scale_high"]),
        with_interval(fit["noise_scale_mean"], fit["noise_scale_mean_low"], fit["noise_scale_mean_high"]),
        *([with_interval(*of_reuse)] if reused else []),
        number(fit["design_effect"], 2),
        int(fit["batch_sizes"]),
        _status(str(fit["status"]), str(fit["message"])),
    ]


def verdict(fits: pd.DataFrame, frames_each: float) -> Html:
    """What the fits of one task say, in a sentence or two, for readers who stop here.

    Args:
        fits: the task's rows of `SweepFit.fits`.
        frames_each: frames each environment adds to a batch, in the mean; NaN where the runs differ or have no
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


_MORE = {
    "frames": "more environments cut the updates at little cost in {unit}; well above it, they mostly burn {unit}",
    "examples": "larger batches cut the updates at little cost in {unit}; well above it, they mostly burn {unit}",
}


def _bound(fit: pd.Series, words: Words) -> list[object]:
    bound = with_interval(math.nan, fit["critical_batch_low"], fit["critical_batch_high"], 2)
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
        f"Well below it, {_MORE[words.unit].format(unit=words.unit)}."
    )
    return parts


def _uses(runs: pd.DataFrame) -> float:
    """How often these runs used each example; 1 where that was not kept."""
    uses = (runs["examples_used"] / runs["examples"]).dropna() if "examples_used" in runs else pd.Series(dtype=float)
    return float(uses.median()) if len(uses) and uses.median() > 0 else 1.0


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
    rows = []
    for size, part in runs.groupby("batch_size"):
        speeds = part["examples_per_second"].dropna()
        middle = float(speeds.median()) if len(speeds) else math.nan
        spread = f"({interval(speeds.min(), speeds.max())})" if len(speeds) > 1 else ""
        environments = part["num_envs"].dropna().unique()
        rows.append(
            [
                f"{int(float(str(size))):,}",
                f"{int(environments[0]):,}" if len(environments) == 1 else DASH,
                f"{len(part):,}",
                join([number(middle), " ", tag("span", spread, class_="soft")]),
                number(middle * _uses(part) / float(str(size))),
                number(float(part["examples"].sum())),
                duration(float(part["wall_seconds"].sum())),
            ]
        )
    return table(heads, rows)


def run_list(runs: pd.DataFrame, tasks: Mapping[str, str] | None = None) -> Html:
    """Every run in one line, behind a fold; the first `LISTED_RUNS` of them."""
    units, quantities = (" or ".join(runs[name].unique()).capitalize() for name in ("unit", "quantity"))
    ends = f"{quantities.replace('_', ' ')} at the end"
    heads = ["Run", "Task", "Batch size", "Learning rate", "Seed", units, ends, "Ended", "Note"]
    rows = [
        [
            tag("code", run["run_id"]),
            (tasks or {}).get(run["task"], run["task"]),
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
