"""What the charts draw, taken from runs and their fits: one row per run, thinned curves, the best learning rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rl_scaling.analysis import is_adaptive, smooth
from rl_scaling.report.words import words_of

POINTS_PER_BEST_RUN = 200
POINTS_PER_OTHER_RUN = 60
OTHER_POINTS = 15_000
FEWEST_POINTS = 12

RUN_KEY = ["store", "run_id"]
SETTING = ["task", "batch_size", "learning_rate", "setting"]
IDENTITY = [*RUN_KEY, "status", "note", *SETTING, "seed", "unit", "quantity"]
CURVE_COLUMNS = ["run", "updates", "examples", "smoothed", "noise_scale", "noise_scale_low", "noise_scale_high"]


@dataclass(frozen=True)
class Series:
    """One section's runs, ready to draw.

    Attributes:
        runs: one row per run: run (a number), the columns of `IDENTITY`, num_envs, examples, updates, wall_seconds,
            examples_per_second (median over rows), final_score (smoothed; of losses the last), noise_measurements,
            adaptive (its batch size followed the noise scale), best, points.
        rows: one row per record, with `run`, `smoothed` (score; losses as they are) and `best`.
        curves: `rows` thinned for drawing, in `CURVE_COLUMNS`; runs for which there is no room are left out.
        left_out: how many runs `curves` leaves out.
    """

    runs: pd.DataFrame
    rows: pd.DataFrame
    curves: pd.DataFrame
    left_out: int


def _number_runs(records: pd.DataFrame) -> pd.DataFrame:
    ordered = records.sort_values([*SETTING, "seed", *RUN_KEY, "updates"], kind="stable").reset_index(drop=True)
    keys = ordered[RUN_KEY].astype(str)
    return ordered.assign(run=keys.groupby(RUN_KEY, sort=False).ngroup())


def _smoothed(rows: pd.DataFrame, horizon: float) -> np.ndarray:
    """(rows,) what is compared with goals: scores smoothed, losses as they are. Rows are numbered from 0."""
    found = np.full(len(rows), np.nan)
    for quantity, part in rows.groupby("quantity"):
        if not words_of(part).measure.over_episodes:
            found[part.index] = part.groupby("run")[str(quantity)].ffill()
            continue
        score, episodes = part["score"].to_numpy(), part["episodes"].to_numpy()
        for places in part.groupby("run").indices.values():
            found[part.index[places]] = smooth(score[places], episodes[places], horizon=horizon)
    return found


def _one_row_per_run(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(adaptive=is_adaptive(rows))
    if "environment.num_envs" not in rows:
        rows = rows.assign(**{"environment.num_envs": np.nan})
    if "examples_used" not in rows:
        rows = rows.assign(examples_used=np.nan)
    totals = {name: (name, "max") for name in ("examples", "updates", "wall_seconds", "examples_used")}
    return (
        rows.groupby("run", sort=True)
        .agg(
            **{name: (name, "first") for name in IDENTITY},
            num_envs=("environment.num_envs", "first"),
            adaptive=("adaptive", "first"),
            **totals,
            examples_per_second=("examples_per_second", "median"),
            final_score=("smoothed", "last"),
            noise_measurements=("noise_measurements", "sum"),
            records=("updates", "size"),
        )
        .reset_index()
    )


def best_rates(runs: pd.DataFrame, fronts: pd.DataFrame) -> pd.DataFrame:
    """The learning rate and setting to show for every task and batch size: columns SETTING.

    It is the one that was first at the hardest goal that batch size reached; where it reached none, the one with
    the best final score or loss (mean over seeds).
    """
    signs = {str(task): 1.0 if words_of(part).direction == "max" else -1.0 for task, part in runs.groupby("task")}
    hardness = fronts["goal"] * fronts["task"].map(signs).astype("float64")
    by_goal = fronts.assign(hardness=hardness).sort_values("hardness")
    by_goal = by_goal.drop_duplicates(["task", "batch_size"], keep="last")
    means = (
        runs.assign(final_score=runs["task"].map(signs).astype("float64") * runs["final_score"])
        .groupby(SETTING, as_index=False)["final_score"]
        .mean()
    )
    by_score = (
        means.assign(final_score=means["final_score"].fillna(-np.inf))
        .sort_values("final_score")
        .drop_duplicates(["task", "batch_size"], keep="last")
    )
    both = pd.concat([by_goal[SETTING], by_score[SETTING]], ignore_index=True)
    return both.drop_duplicates(["task", "batch_size"], keep="first").reset_index(drop=True)


def thin(count: int, points: int) -> np.ndarray:
    """Indices of about `points` rows out of `count`, evenly spread, with the first and the last."""
    if count <= points:
        return np.arange(count)
    return np.unique(np.round(np.linspace(0, count - 1, max(points, 2))).astype(int))


def _points_per_run(runs: pd.DataFrame) -> np.ndarray:
    """How many points each run gets; 0 where it is left out. The best runs come first."""
    others = int((~runs["best"]).sum())
    each = int(np.clip(OTHER_POINTS // max(others, 1), FEWEST_POINTS, POINTS_PER_OTHER_RUN))
    best = int(runs["best"].sum())
    each_best = int(np.clip(OTHER_POINTS // max(best, 1), FEWEST_POINTS, POINTS_PER_BEST_RUN))
    places = (~runs["best"]).cumsum()
    room = OTHER_POINTS // each
    return np.where(runs["best"], each_best, np.where(places <= room, each, 0))


def prepare(records: pd.DataFrame, fronts: pd.DataFrame, horizon: float) -> Series:
    """Brings the records of many runs into the form that charts and tables take.

    Args:
        records: what `rl_scaling.store.load_runs` returns.
        fronts: `SweepFit.fronts`, for the best learning rates.
        horizon: episodes over which scores are smoothed.
    """
    rows = _number_runs(records)
    rows["smoothed"] = _smoothed(rows, horizon)
    runs = _one_row_per_run(rows)
    best = best_rates(runs[~runs["adaptive"]], fronts).assign(best=True)
    runs = runs.merge(best, on=SETTING, how="left", validate="many_to_one")
    runs["best"] = runs["best"].notna()
    runs["note"] = runs["note"].fillna("")
    runs["points"] = _points_per_run(runs)
    rows["best"] = runs["best"].to_numpy()[rows["run"].to_numpy()] if len(rows) else False
    groups = rows.groupby("run", sort=True).indices.values()
    kept = [places[thin(len(places), n)] for places, n in zip(groups, runs["points"], strict=True) if n > 0]
    curves = rows[CURVE_COLUMNS].iloc[np.concatenate(kept) if kept else []]
    return Series(runs=runs, rows=rows, curves=curves.reset_index(drop=True), left_out=int((runs["points"] == 0).sum()))


def of_task(series: Series, task: str) -> Series:
    """The part of a series that belongs to one task."""
    return _only(series, series.runs["task"] == task)


def of_fixed_batches(series: Series) -> Series:
    """The part of a series whose batch sizes did not change; all of it where there is no such part."""
    fixed = ~series.runs["adaptive"]
    return _only(series, fixed) if fixed.any() else series


def _only(series: Series, chosen: pd.Series) -> Series:
    runs = series.runs[chosen]
    numbers = set(runs["run"])
    return Series(
        runs=runs,
        rows=series.rows[series.rows["run"].isin(numbers)],
        curves=series.curves[series.curves["run"].isin(numbers)],
        left_out=int((runs["points"] == 0).sum()),
    )
