"""`rl-scaling status` and `fit`: what a store holds and what it says.

The analysis is imported where they are used, for `--help`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from tyro.conf import Positional, arg

from rl_scaling.cli.options import Folders, print_json, print_line, print_table, say, unset
from rl_scaling.config import ConfigError
from rl_scaling.estimates import Estimate, number
from rl_scaling.records import PARTS, RECORD_TYPES, SEALED, Identity, Measure
from rl_scaling.store import PLAN_FILE, RunInfo, Store, StoreError, list_runs, load_runs
from rl_scaling.sweeps.plan import kept_goals, read_plan
from rl_scaling.sweeps.tuner import Tuner

if TYPE_CHECKING:
    import pandas as pd

    from rl_scaling.analysis import SweepFit

HORIZON = 50.0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Status:
    """What is done, running, diverged and left in a store, and when it will end."""

    folder: Annotated[Path, Positional, arg(metavar="DIR")]
    """A store of runs, or a folder of such stores."""
    json: bool = False
    """Print the table as JSON on stdout."""

    def run(self) -> int:
        infos = {info.run_id: info for info in list_runs(self.folder)}
        stores = [Store(self.folder), *(Store(path.parent) for path in sorted(self.folder.glob(f"*/{PLAN_FILE}")))]
        plans = [plan for store in stores if (plan := read_plan(store))]
        planned = {config.run_id: config for plan in plans for _, config in Tuner(plan, {}).first()}
        if not infos and not planned:
            raise StoreError(f"no runs in {self.folder}: run a sweep there first, or name another folder")
        last = load_runs(self.folder).groupby("run_id")[["examples", "wall_seconds"]].last()
        rows = [_status_row(info, last) for info in infos.values()]
        rows += [
            _row(config.identity, run_id, "waiting", 0, 0.0, config.length)
            for run_id, config in planned.items()
            if run_id not in infos
        ]
        if self.json:
            print_json(rows)
        else:
            _show_status(rows)
        return 0


def _status_row(info: RunInfo, last: pd.DataFrame) -> dict[str, object]:
    examples, seconds = 0, 0.0
    if info.run_id in last.index:
        examples, seconds = int(last["examples"][info.run_id]), float(last["wall_seconds"][info.run_id])
    return _row(info.identity, info.run_id, info.status, examples, seconds, _planned(info))


def _row(
    identity: Identity, run_id: str, status: str, examples: int, seconds: float, planned: int | None
) -> dict[str, object]:
    return {
        "run_id": run_id,
        **{name: getattr(identity, name) for name in ("task", "batch_size", "learning_rate", "seed")},
        "status": status,
        identity.unit: examples,
        f"{identity.unit}_planned": planned,
        f"{identity.unit}_per_second": round(examples / seconds, 1) if seconds else None,
    }


def _planned(info: RunInfo) -> int | None:
    """Frames or examples that the run was meant to take at the most; None where its config does not say."""
    config = info.config
    updates = config.get("updates")
    return config.get(info.identity.unit, None if updates is None else updates * info.identity.batch_size)


def _show_status(rows: list[dict[str, object]]) -> None:
    units = " or ".join(dict.fromkeys(_unit(row) for row in rows))
    table = Table("run", "task", "batch", "rate", "seed", "status", units, "of", box=None)
    for row in rows:
        table.add_row(
            str(row["run_id"]),
            str(row["task"]),
            f"{row['batch_size']:,}",
            f"{row['learning_rate']:g}",
            str(row["seed"]),
            str(row["status"]),
            f"{row[_unit(row)]:,}",
            "" if (planned := row[f"{_unit(row)}_planned"]) is None else f"{planned:,}",
        )
    print_table(table)
    counts = Counter(str(row["status"]) for row in rows)
    print_line(", ".join(f"{count} {status}" for status, count in counts.most_common()))
    left = sum(_left(row) for row in rows)
    speed = sum(float(str(row[f"{_unit(row)}_per_second"] or 0)) for row in rows if row["status"] == "running")
    if left and speed:
        print_line(f"{left:,} {units} left, about {left / speed / 3600:.1f} hours at {speed:,.0f} {units}/s")
    elif left:
        print_line(f"{left:,} {units} left; nothing runs now: give the sweep's command again to resume")


def _unit(row: dict[str, object]) -> str:
    return next(unit for unit in RECORD_TYPES if unit in row)


def _left(row: dict[str, object]) -> int:
    planned = row[f"{_unit(row)}_planned"]
    over = row["status"] in SEALED or planned is None
    return 0 if over else max(0, int(str(planned)) - int(str(row[_unit(row)])))


@dataclass(frozen=True)
class FitOptions:
    """What is to be fitted, and how."""

    folders: Folders
    """Stores of runs, or folders that hold some."""
    goals: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """Scores or losses to reach; by default those kept with the sweep, or the game's own."""
    horizon: float = HORIZON
    """Episodes over which scores are smoothed before they are compared with a goal; losses are not."""
    confidence: float = CONFIDENCE
    """Confidence level of the intervals."""


@dataclass(frozen=True)
class Fit(FitOptions):
    """Goals reached, Pareto fronts and critical batch sizes with intervals."""

    json: bool = False
    """Print one row per task and goal as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.analysis import fits_to_json

        _, fit = load_and_fit(self.folders, self.goals, self.horizon, self.confidence)
        if self.json:
            print_json(fits_to_json(fit.fits, fit.adaptive))
            return 0
        units = " or ".join(fit.fits["unit"].unique())
        reused = fit.fits["noise_scale_reuse_low"].notna().any()
        table = Table(
            *("task", "goal", "S_min\nupdates", f"E_min\n{units}", f"B_crit\n{units}", f"B_simple\n{units}"),
            *([f"B_simple\nof reuse, {units}"] if reused else []),
            *("design\neffect", "batch\nsizes", ""),
            box=None,
        )
        names = ["critical_batch", "noise_scale", *(["noise_scale_reuse"] if reused else [])]
        for row in fit.fits.to_dict("records"):
            table.add_row(
                str(row["task"]),
                f"{row['goal']:g}",
                number(row["steps_min"], whole=True),
                number(row["examples_min"], whole=True),
                *(Estimate.of(row, name).text(whole=True) for name in names),
                number(row["design_effect"], 2),
                str(row["batch_sizes"]),
                str(row["message"]) + (f" (interval from {row['interval']})" if row["interval"] != "none" else ""),
            )
        print_table(table)
        if len(fit.adaptive):
            print_table(_adaptive_table(fit, units))
        if len(frozen := fit.of_tasks(fit.fits["task"].unique()).frozen):
            print_table(frozen_table(frozen.to_dict("records")))
        return 0


def _adaptive_table(fit: SweepFit, units: str) -> Table:
    """Adaptive runs at each goal, with gamma as observed and as predicted."""
    heads = ("task", "goal", "adaptive batch", "S\nupdates", f"E\n{units}", "gamma\nobserved", "gamma predicted")
    table = Table(*heads, "gamma predicted\nby fixed batches", box=None)
    fixed = fit.fits.set_index(["task", "goal"])
    for row in fit.adaptive.to_dict("records"):
        table.add_row(
            str(row["task"]),
            f"{row['goal']:g}",
            str(row["setting"]),
            number(row["updates"], whole=True),
            number(row["examples"], whole=True),
            Estimate.of(row, "gamma_observed").text(whole=True),
            Estimate.of(row, "gamma_predicted").text(whole=True),
            Estimate.of(fixed.loc[(row["task"], row["goal"])].to_dict(), "gamma_predicted").text(whole=True),
        )
    return table


def frozen_table(rows: Sequence[Mapping[Any, Any]]) -> Table:
    """Noise scales measured with the weights kept: rows of `analysis.frozen.frozen_noise_scales`."""
    parts = [f"of the\n{part}" for part in PARTS]
    heads = ("task", "weights kept", "seed", "frames", "B_simple\nframes", *parts, "design\neffect", "B_noise\nframes")
    table = Table(*heads, "of run", box=None)
    for row in rows:
        names = ("noise_scale", *(f"{part}_noise_scale" for part in PARTS))
        table.add_row(
            *(str(row[name]) for name in ("task", "place", "seed")),
            f"{row['frames']:,}",
            *(Estimate.of(row, name).text(2) for name in names),
            number(row["design_effect"], 2),
            Estimate.of(row, "hessian_noise_scale").text(2),
            str(row["of_run"]),
        )
    return table


def load_and_fit(
    folders: tuple[Path, ...], goals: tuple[float, ...] = (), horizon: float = HORIZON, confidence: float = CONFIDENCE
) -> tuple[pd.DataFrame, SweepFit]:
    """The runs below some folders, and their fits; tasks without goals are left out with a word.

    Raises:
        StoreError: no folder, or no runs in it.
        ConfigError: no task has goals.
    """
    if not folders:
        raise ConfigError("name a folder of runs, for instance runs/breakout-a2c")
    from rl_scaling.analysis import fit_runs
    from rl_scaling.analysis.frozen import is_frozen, that_learn

    everything = load_runs(*folders, allow_empty=False)
    runs = that_learn(everything)
    if runs.empty:
        raise ConfigError(
            "nothing is learned in these runs, but measured with the weights kept: see rl-scaling measure"
        )
    tasks: dict[str, tuple[float, ...]] = {}
    refused: list[ConfigError] = []
    for task, rows in runs.groupby("task"):
        try:
            tasks[str(task)] = goals or goals_of_task(str(task), rows)
        except ConfigError as error:
            refused.append(error)
    if not tasks:
        raise refused[0]
    if refused:
        say(f"{len(refused)} tasks without goals are left out, the first because {refused[0]}")
        runs = runs[runs["task"].isin(list(tasks))].reset_index(drop=True)
    fitted = everything[everything["task"].isin(list(tasks)) | is_frozen(everything)].reset_index(drop=True)
    try:
        return runs, fit_runs(fitted, tasks, horizon=horizon, confidence=confidence)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def goals_of_task(task: str, rows: pd.DataFrame) -> tuple[float, ...]:
    """Goals kept with the sweeps that made the rows; else those of the game."""
    kept: set[float] = set()
    for folder in rows["store"].unique():
        kept |= set(kept_goals(Store(str(folder))).get(task, ()))
    if kept:
        return tuple(sorted(kept))
    goals = _goals_of_game(rows)
    if not goals:
        quantity = str(rows["quantity"].iloc[0])
        example = "100 200" if Measure(quantity=quantity).direction == "max" else "0.1 0.01"
        named = quantity.replace("_", " ")
        raise ConfigError(f"{task} has no goals of its own: name a {named} to reach, for instance --goals {example}")
    return goals


def _goals_of_game(rows: pd.DataFrame) -> tuple[float, ...]:
    if "environment.game" not in rows or rows["environment.game"].isna().all():
        return ()
    from rl_scaling.envs import find_game

    return find_game(str(rows["problem"].iloc[0])).goals
