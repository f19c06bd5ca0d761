"""From runs to Pareto fronts: for every goal and batch size the learning rate that reached the goal first.

"For each value of the goal, and for each value of the batch size, we identified the number of optimization steps and
examples processed for the run (among those in the grid search) that achieved that goal most quickly" (McCandlish et al.
2018, A.3). With one seed that is what happens here. With several, a learning rate is judged by the geometric mean of
its seeds' updates, and it counts only if all its seeds reached the goal: a mean over those that happened to get
there would favour rates that sometimes fail. Runs still going ("running", "interrupted") that have not reached a goal
say nothing about it yet and are left out; diverged and stopped runs count up to where they ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.analysis.goals import DEFAULT_HORIZON, Curve, Goals, exact_curve, first_reach, goals_of, smoothed_curve
from rl_scaling.records import Identity, Measure

CELL = ["task", "goal", "batch_size", "learning_rate", "setting"]
FRONT_COLUMNS = [*CELL, "updates", "examples", "seeds", "at_edge", "at_start"]
RATE_COLUMNS = [*CELL, "updates", "examples", "seeds", "reached", "status"]
UNFINISHED = ("running", "interrupted")
_IDENTITY = [field.name for field in dataclasses.fields(Identity)]
_OF_TASK = _IDENTITY[: _IDENTITY.index("batch_size")]
_WHY_NOT = ("diverged", "stopped", "not reached", "unfinished")


@dataclass(frozen=True)
class Run:
    """One run of a table of runs.

    Attributes:
        number: position among the runs.
        task: what it is compared within.
        identity: what tells it apart from others.
        rows: (rows,) positions of its rows in the table, in order of updates.
        examples: (rows,) total examples at each.
        curve: its smoothed score, or its loss as it is.
        uses: how often it used each example, by which its updates were made (epochs, of PPO).
    """

    number: int
    task: str
    identity: Identity
    status: str
    rows: NDArray[np.intp]
    examples: NDArray[np.float64]
    curve: Curve
    uses: float = 1.0

    @property
    def batch_size(self) -> int:
        return self.identity.batch_size

    @property
    def measure(self) -> Measure:
        return self.identity.measure

    @property
    def adaptive(self) -> bool:
        """Whether its batch size followed the noise scale: then it is no point of a front of fixed batch sizes."""
        return self.identity.adaptive


def split_runs(runs: pd.DataFrame, *, horizon: float = DEFAULT_HORIZON) -> list[Run]:
    """The runs of a table in the form of `rl_scaling.store.load_runs`; scores are smoothed, losses stay as they are.

    Raises:
        ValueError: a column is missing.
    """
    return list(_each_run(runs, horizon))


def measures(runs: list[Run]) -> dict[str, Measure]:
    """What each task counts and has goals of, in the order of their names.

    Raises:
        ValueError: runs of one task differ in that.
    """
    found: dict[str, Measure] = {}
    for run in sorted(runs, key=lambda run: run.task):
        if found.setdefault(run.task, run.measure) != run.measure:
            raise ValueError(f"the runs of {run.task} differ in what they count: give them different tasks")
    return found


def reaches(runs: list[Run], goals: Goals) -> pd.DataFrame:
    """Where every run reached every goal of its task.

    A goal takes at least one update, even where the run starts beyond it.

    Returns:
        One row per run and goal: CELL, seed, status, run (its number), updates and examples (NaN where not reached),
        at_start, row and previous_row (positions within the run of the moments at which this goal and the one before
        it were reached, which are earlier than the rows by which that was known; -1 where not, or where there is none
        before).

    Raises:
        ValueError: a task without goals, goals that are not numbers, or what `measures` refuses.
    """
    by_task = {task: goals_of(task, goals, measure.direction) for task, measure in measures(runs).items()}
    found: list[tuple[object, ...]] = []
    for run in runs:
        wanted = by_task[run.task]
        previous = -1
        for goal, hit in zip(wanted, first_reach(run.curve, wanted, run.measure.direction), strict=True):
            if hit is None:
                moment = (np.nan, np.nan, False, -1)
            else:
                row = max(0, int(np.searchsorted(run.examples, hit.examples, side="right")) - 1)
                moment = (max(hit.updates, 1.0), max(hit.examples, run.batch_size / run.uses), hit.at_start, row)
            own = run.identity
            cell = (run.task, goal, own.batch_size, own.learning_rate, own.setting)
            found.append((*cell, own.seed, run.status, run.number, *moment, previous))
            previous = moment[3]
    columns = [*CELL, "seed", "status", "run", "updates", "examples", "at_start", "row", "previous_row"]
    return pd.DataFrame(found, columns=pd.Index(columns)).astype(
        {"goal": "float64", "updates": "float64", "examples": "float64", "at_start": "bool", "run": "int64"}
    )


def seed_table(reached: pd.DataFrame) -> pd.DataFrame:
    """One row per goal, batch size, learning rate, setting and seed, from what `reaches` returns.

    A seed that several runs share (the same settings run for other lengths) counts once: reached if any of them did,
    with the geometric mean of those.

    Returns:
        CELL, seed, log_updates and log_examples (natural logarithms; NaN where not reached), at_start, why_not (place
        in the order diverged, stopped, not reached, unfinished; the first of them if several runs share the seed).
    """
    order = {"diverged": 0, "stopped": 1, **dict.fromkeys(UNFINISHED, 3)}
    table = reached.assign(
        log_updates=np.log(reached["updates"]),
        log_examples=np.log(reached["examples"]),
        why_not=reached["status"].map(order).fillna(2).astype(int),
    )
    grouped = table.groupby([*CELL, "seed"], as_index=False, sort=True)
    return grouped.agg(
        log_updates=("log_updates", "mean"),
        log_examples=("log_examples", "mean"),
        at_start=("at_start", "max"),
        why_not=("why_not", "min"),
    )


def rate_table(seeds: pd.DataFrame) -> pd.DataFrame:
    """Every learning rate and setting of every goal and batch size, from what `seed_table` returns.

    Returns:
        RATE_COLUMNS and at_start: geometric means of updates and examples over the seeds (NaN unless all that are known
        reached the goal), seeds that are known, how many of them reached it, and status: "reached", or why not:
        "diverged", "stopped", "not reached" or "unfinished" (no seed of it is known yet).
    """
    got = seeds["log_updates"].notna()
    known = got | (seeds["why_not"] < 3)
    marked = seeds.assign(known=known, got=got, why_not=seeds["why_not"].where(~got, 3))
    table = marked.groupby(CELL, as_index=False, sort=True).agg(
        updates=("log_updates", "mean"),
        examples=("log_examples", "mean"),
        seeds=("known", "sum"),
        reached=("got", "sum"),
        at_start=("at_start", "max"),
        why_not=("why_not", "min"),
    )
    counts = (table["seeds"] > 0) & (table["seeds"] == table["reached"])
    for name in ("updates", "examples"):
        table[name] = np.where(counts, np.exp(table[name].to_numpy(np.float64)), np.nan)
    words = np.array(_WHY_NOT, dtype=object)[table["why_not"].to_numpy(np.int64)]
    table["status"] = np.where(counts.to_numpy(), "reached", words)
    return table[[*RATE_COLUMNS, "at_start"]]


def best_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """The front: the fewest updates for every goal and batch size, from what `rate_table` returns.

    Returns:
        FRONT_COLUMNS, sorted. at_edge: the rate is the smallest or the largest that was tried at that batch size, so
        that a better one may lie beyond. at_start: some seed's first smoothed score was already past the goal.
    """
    ends = rates.groupby(["task", "batch_size"], as_index=False)["learning_rate"].agg(["min", "max"])
    usable = rates[rates["status"] == "reached"].sort_values([*CELL[:3], "updates", "learning_rate"])
    front = usable.drop_duplicates(CELL[:3], keep="first").merge(ends, on=["task", "batch_size"], how="left")
    front["at_edge"] = (front["learning_rate"] == front["min"]) | (front["learning_rate"] == front["max"])
    return front[FRONT_COLUMNS].reset_index(drop=True)


def is_adaptive(runs: pd.DataFrame) -> NDArray[np.bool_]:
    """(rows,) whether a row is of a run whose batch size followed the noise scale."""
    return runs["exchange_rate"].notna().to_numpy(bool)


def tasks_of(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per task, in the order of their names, with the columns of `Identity` that its runs have in common.

    Returns:
        domain, problem, algorithm, variant, budget_amount, budget_unit, unit, quantity, by task.
    """
    return runs.drop_duplicates("task").set_index("task")[_OF_TASK].sort_index()


def measure_of(table: pd.DataFrame) -> Measure:
    """What rows of one task count, from their columns unit and quantity."""
    return Measure(str(table["unit"].iloc[0]), str(table["quantity"].iloc[0]))


def _each_run(runs: pd.DataFrame, horizon: float) -> Iterator[Run]:
    columns = _columns(runs)
    by = [name for name in ("store", "run_id") if name in runs.columns]
    for number, positions in enumerate(runs.groupby(by, sort=True).indices.values()):
        found = np.asarray(positions, dtype=np.intp)
        rows = found[np.argsort(columns["updates"][found], kind="stable")]
        first = rows[0]
        plain: dict[str, Any] = {name: columns[name][first] for name in _IDENTITY}
        identity = Identity(**{name: x.item() if isinstance(x, np.generic) else x for name, x in plain.items()})
        yield Run(
            number=number,
            task=str(columns["task"][first]),
            identity=identity,
            status=str(columns["status"][first]),
            rows=rows,
            examples=columns["examples"][rows],
            curve=_curve(columns, rows, identity.measure, horizon),
            uses=_uses(columns, rows),
        )


def _columns(runs: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """The columns that runs are made of; numbers that change along a run as floats."""
    quantities = [str(name) for name in runs["quantity"].unique()] if "quantity" in runs.columns else []
    changing = ["updates", "examples", *quantities, *(["episodes"] if "score" in quantities else [])]
    missing = [
        name for name in dict.fromkeys(["run_id", "task", "status", *_IDENTITY, *changing]) if name not in runs.columns
    ]
    if missing:
        raise ValueError(f"the runs have no column {', '.join(missing)}: give the table that load_runs returns")
    columns = {name: runs[name].to_numpy() for name in ("task", "status", *_IDENTITY)}
    changing += ["examples_used"] if "examples_used" in runs.columns else []
    return columns | {name: runs[name].to_numpy(np.float64) for name in changing}


def _uses(columns: dict[str, NDArray[Any]], rows: NDArray[np.intp]) -> float:
    """How often examples were used; 1 where it was not kept."""
    if "examples_used" not in columns:
        return 1.0
    used, examples = columns["examples_used"][rows[-1]], columns["examples"][rows[-1]]
    return float(used / examples) if used > 0 and examples > 0 else 1.0


def _curve(columns: dict[str, NDArray[Any]], rows: NDArray[np.intp], measure: Measure, horizon: float) -> Curve:
    updates, examples, values = (columns[name][rows] for name in ("updates", "examples", measure.quantity))
    if not measure.over_episodes:
        return exact_curve(updates, examples, values)
    return smoothed_curve(updates, examples, values, columns["episodes"][rows], horizon=horizon)
