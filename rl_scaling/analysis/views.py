"""What a page shows of runs and their fits, as tables: one row per run, thinned curves, the best learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from rl_scaling.analysis.fronts import is_adaptive, measure_of, split_runs, tasks_of
from rl_scaling.analysis.goals import DEFAULT_HORIZON
from rl_scaling.analysis.noise_scale import noise_over_training
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

    def only(self, chosen: pd.Series) -> Series:
        """The part that belongs to some of the `runs`."""
        runs = self.runs[chosen]
        rows, curves = (table[table["run"].isin(set(runs["run"]))] for table in (self.rows, self.curves))
        return Series(runs, rows, curves)


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


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Runs and what was found in them, to be shown task by task.

    Attributes:
        runs: rows in the form of `rl_scaling.store.load_runs`; may be empty.
        fit: what `rl_scaling.analysis.fit_runs` found in them.
        horizon: episodes over which scores are smoothed; the one the fit used.
        predictions: what a model fitted to the runs of a task predicts: task, goal, batch_size, updates, updates_low,
            updates_high, model; None where none was fitted.
        rate_powers: alpha of A.3 (McCandlish et al. 2018) by algorithm; 1 where nothing is said.
        curves: whether to draw every run's learning curve and noise scale, the bulk of a page.
    """

    runs: pd.DataFrame
    fit: SweepFit
    horizon: float = DEFAULT_HORIZON
    predictions: pd.DataFrame | None = None
    rate_powers: Mapping[str, float] = field(default_factory=dict)
    curves: bool = True

    @cached_property
    def identities(self) -> pd.DataFrame:
        """See `rl_scaling.analysis.fronts.tasks_of`."""
        return tasks_of(self.runs)

    @property
    def problems(self) -> dict[str, str]:
        """The problem of every task."""
        return {str(task): str(problem) for task, problem in self.identities["problem"].items()}

    def tasks(self) -> list[TaskView]:
        """Every task, in the order of their names."""
        if self.runs.empty:
            return []
        series = prepare(self.runs, self.fit.fronts, self.horizon)
        return [TaskView(task, series.only(series.runs["task"] == task), self) for task in self.problems]


@dataclass(frozen=True)
class TaskView:
    """All that is shown of one task: its runs, and what was found in them and in those of all tasks beside it."""

    task: str
    series: Series
    found: Findings

    @property
    def measure(self) -> Measure:
        """What the task counts and has goals of."""
        return measure_of(self.series.runs)

    @cached_property
    def own(self) -> SweepFit:
        """The task's rows of the fits."""
        return self.found.fit.of_tasks([self.task])

    @property
    def predictions(self) -> pd.DataFrame | None:
        """The task's rows of what a model predicts."""
        table = self.found.predictions
        return None if table is None else table[table["task"] == self.task]

    @property
    def rate_power(self) -> float:
        """Alpha of A.3 for its algorithm."""
        return self.found.rate_powers.get(str(self.found.identities["algorithm"][self.task]), 1.0)

    @cached_property
    def fixed(self) -> Series:
        """The runs whose batch sizes did not change; all of them where there are no such."""
        fixed = ~self.series.runs["adaptive"]
        return self.series.only(fixed) if fixed.any() else self.series

    @cached_property
    def noise(self) -> pd.DataFrame:
        """B_simple over examples, pooled over the best learning rate of each batch size."""
        best = self.fixed.rows[self.fixed.rows["best"]]
        return noise_over_training(best, horizon=self.found.horizon)

    @property
    def examples_each(self) -> float:
        """What each environment adds to a batch; NaN where the runs differ or have no environments."""
        each = (self.fixed.runs["batch_size"] / self.fixed.runs["num_envs"].astype(float)).dropna().unique()
        return float(each[0]) if len(each) == 1 else math.nan


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
