"""What a page shows of runs and their fits, as tables: one row per run, thinned curves, the best learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from rl_scaling.analysis.fronts import is_adaptive, measure_of, split_runs, tasks_of
from rl_scaling.analysis.noise_scale import noise_over_training
from rl_scaling.analysis.smoothing import DEFAULT_HORIZON
from rl_scaling.analysis.sweep_fit import SweepFit
from rl_scaling.estimates import columns_of
from rl_scaling.records import Direction, Measure

POINTS_PER_BEST_RUN = 200
POINTS_PER_OTHER_RUN = 60
OTHER_POINTS = 15_000
FEWEST_POINTS = 12

RUN_KEY = ["store", "run_id"]
SETTING = ["task", "batch_size", "learning_rate", "setting"]
IDENTITY = [*RUN_KEY, "status", "note", *SETTING, "seed", "unit", "quantity"]
CURVE_COLUMNS = ["run", "updates", "examples", "smoothed", *columns_of("noise_scale")]


@dataclass(frozen=True)
class Series:
    """Runs, ready to draw.

    Attributes:
        runs: one row per run: run (a number), the columns of `IDENTITY`, num_envs, examples, updates, wall_seconds,
            examples_per_second (median over rows), final_score (smoothed; of losses the last), noise_measurements,
            adaptive (its batch size followed the noise scale), best, points.
        rows: one row per record, with `run`, `smoothed` (score; losses as they are) and `best`.
        curves: `rows` thinned for drawing, in `CURVE_COLUMNS`; runs for which there is no room are left out.
    """

    runs: pd.DataFrame
    rows: pd.DataFrame
    curves: pd.DataFrame

    @property
    def left_out(self) -> int:
        """How many runs `curves` leaves out."""
        return int((self.runs["points"] == 0).sum())


def _number_runs(records: pd.DataFrame) -> pd.DataFrame:
    ordered = records.sort_values([*SETTING, "seed", *RUN_KEY, "updates"], kind="stable").reset_index(drop=True)
    keys = ordered[RUN_KEY].astype(str)
    return ordered.assign(run=keys.groupby(RUN_KEY, sort=False).ngroup())


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


def shown_rates(runs: pd.DataFrame, fronts: pd.DataFrame) -> pd.DataFrame:
    """The learning rate and setting to show for every task and batch size: columns SETTING.

    It is the one that was first at the hardest goal that batch size reached; where it reached none, the one with
    the best final score or loss (mean over seeds).
    """
    signs = {str(task): 1.0 if measure_of(part).direction == "max" else -1.0 for task, part in runs.groupby("task")}
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
    smoothed = np.full(len(rows), np.nan)
    for run in split_runs(rows, horizon=horizon):
        smoothed[run.rows] = run.curve.score
    rows["smoothed"] = smoothed
    runs = _one_row_per_run(rows)
    best = shown_rates(runs[~runs["adaptive"]], fronts).assign(best=True)
    runs = runs.merge(best, on=SETTING, how="left", validate="many_to_one")
    runs["best"] = runs["best"].notna()
    runs["note"] = runs["note"].fillna("")
    runs["points"] = _points_per_run(runs)
    rows["best"] = runs["best"].to_numpy()[rows["run"].to_numpy()] if len(rows) else False
    groups = rows.groupby("run", sort=True).indices.values()
    kept = [places[thin(len(places), n)] for places, n in zip(groups, runs["points"], strict=True) if n > 0]
    curves = rows[CURVE_COLUMNS].iloc[np.concatenate(kept) if kept else []]
    return Series(runs=runs, rows=rows, curves=curves.reset_index(drop=True))


def of_task(series: Series, task: str) -> Series:
    """The part of a series that belongs to one task."""
    return _only(series, series.runs["task"] == task)


def of_fixed_batches(series: Series) -> Series:
    """The part of a series whose batch sizes did not change; all of it where there is no such part."""
    fixed = ~series.runs["adaptive"]
    return _only(series, fixed) if fixed.any() else series


def _only(series: Series, chosen: pd.Series) -> Series:
    runs = series.runs[chosen]
    rows, curves = (table[table["run"].isin(set(runs["run"]))] for table in (series.rows, series.curves))
    return Series(runs, rows, curves)


@dataclass(frozen=True)
class TaskView:
    """All that is shown of one task.

    Attributes:
        task: its label.
        series: its runs.
        sweep: the fits of all tasks beside it.
        problems: the problem of each of those.
        horizon: episodes over which scores were smoothed.
        predictions: what a model predicts: goal, batch_size, updates, updates_low, updates_high, model; None or empty
            where none was fitted.
        rate_power: alpha of A.3 for its algorithm.
        curves: whether every run is to be drawn.
    """

    task: str
    series: Series
    sweep: SweepFit
    problems: Mapping[str, str] = field(default_factory=dict)
    horizon: float = DEFAULT_HORIZON
    predictions: pd.DataFrame | None = None
    rate_power: float = 1.0
    curves: bool = True

    @property
    def measure(self) -> Measure:
        """What the task counts and has goals of."""
        return measure_of(self.series.runs)

    @cached_property
    def own(self) -> SweepFit:
        """The task's rows of the fits."""
        return self.sweep.of_tasks([self.task])

    @cached_property
    def fixed(self) -> Series:
        """The runs whose batch sizes did not change; all of them where there are no such."""
        return of_fixed_batches(self.series)

    @cached_property
    def noise(self) -> pd.DataFrame:
        """B_simple over examples, pooled over the best learning rate of each batch size."""
        best = self.fixed.rows[self.fixed.rows["best"]]
        return noise_over_training(best, by="examples", horizon=self.horizon)

    @property
    def examples_each(self) -> float:
        """What each environment adds to a batch; NaN where the runs differ or have no environments."""
        each = (self.fixed.runs["batch_size"] / self.fixed.runs["num_envs"].astype(float)).dropna().unique()
        return float(each[0]) if len(each) == 1 else math.nan


def task_views(
    runs: pd.DataFrame,
    fit: SweepFit,
    *,
    horizon: float = DEFAULT_HORIZON,
    predictions: pd.DataFrame | None = None,
    rate_powers: Mapping[str, float] | None = None,
    curves: bool = True,
) -> list[TaskView]:
    """Every task of a table of runs, in the order of their names.

    Args:
        runs: rows in the form of `rl_scaling.store.load_runs`.
        fit: what was found in them.
        horizon: of the smoothing of scores, in episodes.
        predictions: as in `TaskView`, with a column task.
        rate_powers: alpha of A.3 by algorithm; 1 where nothing is said.
        curves: as in `TaskView`.
    """
    if runs.empty:
        return []
    series, tasks = prepare(runs, fit.fronts, horizon), tasks_of(runs)
    problems = {str(task): str(problem) for task, problem in tasks["problem"].items()}
    return [
        TaskView(
            task=task,
            series=of_task(series, task),
            sweep=fit,
            problems=problems,
            horizon=horizon,
            predictions=None if predictions is None else predictions[predictions["task"] == task],
            rate_power=(rate_powers or {}).get(str(tasks["algorithm"][task]), 1.0),
            curves=curves,
        )
        for task in problems
    ]


def batch_sizes_by_goal(fits: pd.DataFrame) -> pd.DataFrame:
    """B_crit and B_simple of every goal in one long table.

    Returns:
        Columns goal, what ("critical_batch" or "noise_scale"), value, low, high, bound ("interval", "at least",
        "at most", "interval only" or ""), at; one row for each goal and quantity of which something is known. Values
        are in the task's unit; NaN where not known.
    """
    parts = []
    for what in ("critical_batch", "noise_scale"):
        columns = dict(zip(("value", "low", "high"), columns_of(what), strict=True))
        part = pd.DataFrame({"goal": fits["goal"], "what": what} | {n: positive(fits[c]) for n, c in columns.items()})
        has_low, has_high, has_value = (part[name].notna() for name in ("low", "high", "value"))
        kinds = [has_low & has_high, has_low & ~has_value, has_high & ~has_value]
        part["bound"] = np.select(kinds, ["interval", "at least", "at most"], "")
        part["at"] = np.select(kinds[1:], [part["low"], part["high"]], part["value"])
        part["bound"] = part["bound"].where(has_value | (part["bound"] != "interval"), "interval only")
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table[table[["value", "low", "high"]].notna().any(axis=1)].reset_index(drop=True)


def positive(values: pd.Series) -> pd.Series:
    """Values a logarithmic axis can hold; the others become NaN."""
    numbers = values.astype(float)
    return numbers.where(np.isfinite(numbers) & (numbers > 0))


def goals_in_common(rows: pd.DataFrame, problems: Mapping[str, str]) -> list[pd.DataFrame]:
    """Of each problem that several tasks are about, the rows of goals that at least two of them have.

    Args:
        rows: of `SweepFit.fits` or `SweepFit.fronts`.
        problems: of every task.
    """
    named = rows.assign(problem=rows["task"].map(dict(problems)))
    shared = named[named.groupby(["problem", "goal"])["task"].transform("nunique") > 1]
    return [part for _, part in shared.groupby("problem")]


def goal_of_most_tasks(fronts: pd.DataFrame, direction: Direction) -> float:
    """Of the goals that most tasks reached, the one with most points; of several, the hardest."""
    counts = fronts.groupby("goal").agg(tasks=("task", "nunique"), points=("task", "size"))
    hardness = counts.index if direction == "max" else -counts.index
    return float(counts.assign(hardness=hardness).sort_values(["tasks", "points", "hardness"]).index[-1])


def factor_off(measured: pd.DataFrame, predicted: pd.DataFrame) -> float:
    """The typical factor by which measured updates are off a predicted line, both with batch_size; NaN without any."""
    at, updates = (np.log(measured[name].to_numpy(float)) for name in ("batch_size", "updates"))
    line = (np.log(predicted[name].to_numpy(float)) for name in ("batch_size", "updates"))
    return float(np.exp(np.sqrt(np.mean((updates - np.interp(at, *line)) ** 2)))) if len(at) else math.nan
