"""The fits of a sweep: for every task and goal a front, a trade-off with its interval, and the noise scale."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from rl_scaling.analysis.fronts import (
    CELL,
    RATE_COLUMNS,
    Run,
    best_rates,
    measures,
    rate_table,
    reaches,
    seed_table,
    split_runs,
)
from rl_scaling.analysis.frozen import COLUMNS as FROZEN_COLUMNS
from rl_scaling.analysis.frozen import frozen_noise_scales, that_learn
from rl_scaling.analysis.goals import DEFAULT_HORIZON, Goals, goals_of
from rl_scaling.analysis.noise_path import (
    ADAPTIVE_COLUMNS,
    adaptive_table,
    gamma_of_runs,
    mean_noise_scale,
    path_to_goal,
)
from rl_scaling.analysis.noise_scale import NOTHING, NoiseRows, noise_columns, phase_rows
from rl_scaling.analysis.profile import (
    FAILED,
    UNKNOWN,
    Cell,
    Profile,
    can_resample,
    residual_interval,
    seed_interval,
)
from rl_scaling.analysis.tradeoff import (
    TradeoffFit,
    describe,
    distinct_batch_sizes,
    not_reached,
    unfitted,
)
from rl_scaling.estimates import columns_of
from rl_scaling.records import REUSE

FIT_COLUMNS = (
    "task",
    "goal",
    "unit",
    "quantity",
    "steps_min",
    "log_steps_min_se",
    "examples_min",
    "log_examples_min_se",
    *columns_of("critical_batch"),
    "log_critical_batch_se",
    "confidence",
    "interval",
    "status",
    "message",
    "batch_sizes",
    *columns_of("noise_scale"),
    *columns_of("noise_scale_reuse"),
    *columns_of("noise_scale_mean"),
    "design_effect",
    *columns_of("gamma_predicted"),
)

# What is chosen for a goal: a learning rate and a setting for each batch size.
_CHOICE = CELL[2:]


@dataclass(frozen=True)
class SweepFit:
    """What a sweep says.

    Attributes:
        fronts: one row for each task, goal and batch size that reached it: task, goal, batch_size, learning_rate
            and setting (the best ones), updates, examples, seeds, at_edge (the best rate is an end of the grid),
            at_start (a seed was past the goal when its score was first known; such points are not fitted).
        learning_rates: one row for each task, goal, batch size, learning rate and setting tried: updates and examples
            (NaN where it does not count), seeds (that are known), reached (how many of them reached the goal),
            status ("reached", "not reached", "diverged", "stopped" or "unfinished").
        fits: one row for each task and goal, FIT_COLUMNS. Batch sizes and noise scales are in the task's unit; the
            `_se` columns are standard errors of natural logarithms; interval says where the interval of B_crit comes
            from, "seeds" (bootstrap), "residuals" (of the fit) or "none"; status and message as in `TradeoffFit`;
            noise_scale is that of the phase between the goal before and this one, noise_scale_mean that of the whole
            way, the mean that predicts B_crit (M18, D.1); both are NaN and their upper ends infinite while unresolved;
            noise_scale_reuse is noise_scale where examples are used again, NaN where they are not;
            gamma_predicted is what an adaptive batch could gain (M18, D.5) by the noise scale of the front's runs,
            NaN where examples are used again.
        adaptive: one row for each goal that runs with an adaptive batch reached: `noise_path.ADAPTIVE_COLUMNS`. They
            are in none of the other tables.
        frozen: one row for each measurement with the weights kept: `frozen.COLUMNS`. Nothing was learned in them; they
            are in none of the other tables either.
    """

    fronts: pd.DataFrame
    learning_rates: pd.DataFrame
    fits: pd.DataFrame
    adaptive: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=pd.Index(ADAPTIVE_COLUMNS)))
    frozen: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=pd.Index(FROZEN_COLUMNS)))

    def of_tasks(self, tasks: Collection[str]) -> SweepFit:
        """The rows of some tasks."""
        tables = (self.fronts, self.learning_rates, self.fits, self.adaptive, self.frozen)
        return SweepFit(*(table[table["task"].isin(list(tasks))] for table in tables))


def fit_runs(
    runs: pd.DataFrame,
    goals: Goals,
    *,
    horizon: float = DEFAULT_HORIZON,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> SweepFit:
    """Fronts, trade-offs (M18, eqs. 2.11 and 2.12) and noise scales for every task and goal of a sweep.

    Args:
        runs: rows in the form of `rl_scaling.store.load_runs`.
        goals: goals for all tasks, or a sequence for each task.
        horizon: of the smoothing of scores, in episodes; losses are not smoothed.
        resamples: draws of the bootstrap over seeds; the result is the same each time.

    Raises:
        ValueError: a column is missing, a task has no goals, a goal is not a finite number, or a confidence is
            outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}: give 1 or more, such as 1000")
    frozen, runs = frozen_noise_scales(runs, confidence=confidence), that_learn(runs)
    split = split_runs(runs, horizon=horizon)
    everything = reaches(split, goals)
    followed = everything["run"].map([run.adaptive for run in split].__getitem__).astype(bool)
    reached = everything[~followed]
    seeds = seed_table(reached)
    rates = rate_table(seeds)
    fronts = best_rates(rates)
    noise, reuse = NoiseRows(runs), NoiseRows(runs, REUSE) if f"{REUSE}_trace_cov" in runs else None
    rows: list[dict[str, object]] = []
    for task, measure in measures(split).items():
        for goal in goals_of(task, goals, measure.direction):
            front = _of_goal(fronts, task, goal)
            uses = float(np.median([run.uses for run in split if run.task == task]))
            fit, interval = fit_front(
                front, _of_goal(seeds, task, goal), uses=uses, confidence=confidence, resamples=resamples
            )
            identity = {"task": task, "goal": goal, "unit": measure.unit, "quantity": measure.quantity}
            of_task = reached[reached["task"] == task]
            measured = _noise_of_front(noise, reuse, split, of_task, front, goal, confidence)
            rows.append({**identity, **asdict(fit), "interval": interval, **measured})
    fits = pd.DataFrame(rows, columns=pd.Index(FIT_COLUMNS))
    adaptive = adaptive_table(noise, split, everything[followed], rate_table(seed_table(everything[followed])), fits)
    return SweepFit(fronts, rates[RATE_COLUMNS], fits, adaptive, frozen)


def fit_front(
    front: pd.DataFrame, seeds: pd.DataFrame, *, confidence: float, resamples: int, uses: float = 1.0
) -> tuple[TradeoffFit, str]:
    """The trade-off of one goal and where its interval comes from: "seeds", "residuals" or "none".

    Points with `at_start` are left out: they tell when the score was first known, not how long learning took.

    Args:
        front: the goal's rows of `best_rates`.
        seeds: the goal's rows of `seed_table`.
        uses: how often each example is used. E is examples, so that a batch is E uses / S of them and
            B_crit = E_min uses / S_min.
    """
    if front.empty:
        return not_reached(confidence, by_some=bool(seeds["log_updates"].notna().any())), "none"
    points = front[~front["at_start"]]
    log_steps = np.log(points["updates"].to_numpy(np.float64))
    weights = points["seeds"].to_numpy(np.float64)
    log_batch = np.log(uses * points["examples"].to_numpy(np.float64)) - log_steps
    profile = Profile(log_steps, log_batch, weights / weights.sum() * len(weights))
    if distinct_batch_sizes(log_batch) < 3:
        return _noted(unfitted(profile, confidence), front), "none"
    cells = [_cell(seeds, *chosen) for chosen in points[_CHOICE].itertuples(index=False)]
    if can_resample(cells):
        interval, source = seed_interval(profile, cells, confidence=confidence, resamples=resamples), "seeds"
    else:
        interval, source = residual_interval(profile, confidence), "residuals"
    fit = describe(profile, interval, confidence)
    return _noted(replace(fit, examples_min=fit.examples_min / uses), front), source


def fits_to_json(fits: pd.DataFrame, adaptive: pd.DataFrame | None = None) -> list[dict[str, Any]]:
    """The rows of `SweepFit.fits` as plain data for strict JSON: what is not a finite number becomes None.

    Args:
        adaptive: `SweepFit.adaptive`: its rows are listed under "adaptive" of their goal.
    """
    rows = [{str(name): _plain(value) for name, value in row.items()} for row in fits.to_dict("records")]
    if adaptive is None:
        return rows
    beside = fits_to_json(adaptive)
    of_goal = ("task", "goal")
    return [row | {"adaptive": [a for a in beside if all(a[k] == row[k] for k in of_goal)]} for row in rows]


def _plain(value: object) -> object:
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _of_goal(table: pd.DataFrame, task: str, goal: float) -> pd.DataFrame:
    return table[(table["task"] == task) & (table["goal"] == goal)]


def _noted(fit: TradeoffFit, front: pd.DataFrame) -> TradeoffFit:
    """Adds to the message what makes a front doubtful whatever the fit."""
    notes = [fit.message]
    for column, words in (
        ("at_start", "left out, as the goal was passed before the score was known (choose a harder goal)"),
        ("at_edge", "best learning rate at the edge of the grid"),
    ):
        sizes = front.loc[front[column].astype(bool), "batch_size"].tolist()
        if sizes:
            notes.append(f"{words}: batch size {', '.join(f'{size:,}' for size in sizes)}")
    return replace(fit, message="; ".join(notes))


def _cell(seeds: pd.DataFrame, size: float, rate: float, setting: str) -> Cell:
    """The learning rates, settings and seeds of one batch size, from the goal's rows of `seed_table`."""
    here = seeds[seeds["batch_size"] == size]
    choices = pd.MultiIndex.from_frame(here[_CHOICE[1:]])
    row, tried = choices.factorize(sort=True)
    labels, column = np.unique(here["seed"].to_numpy(), return_inverse=True)
    found = here["log_updates"].to_numpy(np.float64)
    log_updates = np.full((len(tried), len(labels)), UNKNOWN)
    log_updates[row, column] = np.where(np.isnan(found) & (here["why_not"].to_numpy() < 3), FAILED, found)
    return Cell(log_updates, best=tried.tolist().index((rate, setting)))


def _noise_of_front(
    noise: NoiseRows,
    reuse: NoiseRows | None,
    runs: list[Run],
    reached: pd.DataFrame,
    front: pd.DataFrame,
    goal: float,
    confidence: float,
) -> dict[str, float]:
    """B_simple of the front's runs between the goal before and this one, and gamma of the whole way.

    Where examples are used several times B_simple is that of their first use, and of later ones under its own names.
    """
    chosen = reached[(reached["goal"] == goal) & (reached["row"] >= 0)].merge(front[_CHOICE])
    ends = zip(chosen["run"].tolist(), chosen["previous_row"].tolist(), chosen["row"].tolist(), strict=True)
    rows = phase_rows(runs, ends)
    pooled, again = noise.pool(rows, confidence), reuse.pool(rows, confidence) if reuse else NOTHING
    path = path_to_goal(noise, runs, reached[reached["run"].isin(chosen["run"])], goal)
    mean = mean_noise_scale(path, confidence=confidence)
    gamma = gamma_of_runs(path, [runs[number] for number in chosen["run"]], confidence=confidence)
    whole_way = mean.columns("noise_scale_mean") | gamma.columns("gamma_predicted")
    return noise_columns(pooled) | again.columns("noise_scale_reuse") | whole_way
