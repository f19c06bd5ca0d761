"""The run that advice rests on: which one, what it shows, why not to trust it, and how it compares with a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from rl_scaling.analysis.costs import CostModel, Throughput, measured_throughput
from rl_scaling.analysis.fronts import Run, reaches, split_runs
from rl_scaling.analysis.goals import DEFAULT_HORIZON
from rl_scaling.analysis.noise_path import (
    NoisePath,
    ScaleError,
    path_of_kept_weights,
    path_of_run,
    path_to_goal,
    predicted,
)
from rl_scaling.analysis.noise_scale import NoiseRows
from rl_scaling.analysis.predictions import PredictedTask, is_swept
from rl_scaling.analysis.sweep_fit import fit_runs
from rl_scaling.estimates import Estimate
from rl_scaling.records import Measure

# Beyond this the interval of B_crit says little more than its order of magnitude.
_WIDE = 10.0
_FEWEST_MEASUREMENTS = 50
# A learning rate that takes this many times the updates of the best one tried is no basis for a prediction.
_OFF = 1.25
_GREW = 1.5
# Weights are kept at the record after a goal, which may be a little later than the score, smoothed, says.
_SOON = 1.1
TRAINING, KEPT_WEIGHTS = "training", "kept weights"


@dataclass(frozen=True)
class ChosenRun:
    """The run that a forecast rests on.

    Attributes:
        run: run_id, task, batch_size, learning_rate, rollout_steps (examples of one environment per update; 0 where
            there is no such thing), unit, quantity, goals (reached, the easiest first), goal (the last of them, NaN
            where there is none), gained (whether the score has left what it was at first), measurements, examples and
            updates (to that goal, or to the end).
        path: the noise scale on the way.
        paths: the same to each goal that it reached.
        rates: the learning rates tried at its batch size: learning_rate and updates (to the same goal; NaN where it was
            not reached).
        kept: goals on whose way the noise scale is that of kept weights, not of a meter while it trained.
    """

    run: dict[str, Any]
    path: NoisePath
    paths: dict[float, NoisePath]
    rates: pd.DataFrame
    kept: frozenset[float] = frozenset()

    def source_of(self, goal: float) -> str:
        """Where the noise scale on the way to a goal comes from."""
        return KEPT_WEIGHTS if goal in self.kept else TRAINING


def choose_run(
    runs: pd.DataFrame,
    goals: Sequence[float],
    *,
    run_id: str | None = None,
    examples: float = math.inf,
    horizon: float = DEFAULT_HORIZON,
    used_once: bool = True,
) -> ChosenRun:
    """Choose a run of one task and read off it what a forecast needs.

    Args:
        runs: rows of one task in the form of `rl_scaling.store.load_runs`.
        goals: of the task.
        run_id: beginning of the run's id; None: of the runs at the settings that came first to the hardest goal at
            their batch size, whatever their seed, the one whose noise scale is known best; without goals reached, the
            longest.
        examples: the run is cut after this many.
        used_once: refuse runs that use examples several times, of which updates and examples cannot be forecast.

    Raises:
        ValueError: no such run, several, or one with an adaptive batch; one of PPO, or without measurements.
    """
    split = split_runs(runs, horizon=horizon)
    reached = reaches(split, goals)
    number = _chosen(runs, split, reached, run_id)
    rows = split[number].rows
    kept = rows[: max(1, int(np.searchsorted(split[number].examples, examples, side="right")))]
    cut = runs.loc[kept].reset_index(drop=True)
    (run,) = split_runs(cut, horizon=horizon)
    own = reaches([run], goals).dropna(subset=["updates"]).sort_values("updates")
    noise = NoiseRows(cut)
    if used_once and str(_asked(cut, "agent.kind")).startswith("ppo"):
        raise ValueError("PPO learns from each frame several times, which no forecast here knows of: give a run of A2C")
    measured = len(noise.usable(run.rows))
    if not measured:
        raise ValueError(f"run {cut['run_id'].iloc[0]} has no noise scale: measure it in the run")
    goal = float(own["goal"].iloc[-1]) if len(own) else math.nan
    paths = {float(g): path_to_goal(noise, [run], own, float(g)) for g in own["goal"]}
    end = own.iloc[-1] if len(own) else cut.iloc[-1]
    facts = {
        **{name: cut[name].iloc[0] for name in ("run_id", "task", "unit", "quantity", "learning_rate")},
        "batch_size": int(run.batch_size),
        "rollout_steps": int(_asked(cut, "agent.rollout_steps") or 0),
        "goals": own["goal"].tolist(),
        "goal": goal,
        "gained": has_gained(cut, run.measure),
        "measurements": float(cut["noise_measurements"].sum()),
        "updates": float(end["updates"]),
        "examples": float(end["examples"]),
    }
    path = paths[goal] if len(own) else path_of_run(noise, run, cut["updates"].to_numpy(np.float64))
    return ChosenRun(facts, path, paths, _rates(reached, run, goal if len(own) else None))


def measured_run(frozen: pd.DataFrame | None, runs: pd.DataFrame) -> str | None:
    """The run whose weights were measured at most places; None where none of these runs' were."""
    if frozen is None or frozen.empty:
        return None
    places = frozen.loc[frozen["of_run"].isin(runs["run_id"].unique()), "of_run"].value_counts()
    return str(places.index[0]) if len(places) else None


def with_kept_weights(chosen: ChosenRun, frozen: pd.DataFrame | None) -> ChosenRun:
    """The run with the noise scale of its kept weights instead of its meter's, for goals on whose way it was measured.

    A measurement in the second half of the way is asked for: at the start alone the noise scale is far too small. The
    policy at the start is that of any run of the task.

    Args:
        frozen: of the run's task, as `analysis.frozen.frozen_noise_scales` has it; None: nothing was measured so.
    """
    if frozen is None or frozen.empty:
        return chosen
    own = frozen[frozen["of_run"] == chosen.run["run_id"]]
    start = frozen[frozen["of_run"] == ""].iloc[:1]
    paths = {}
    for goal, path in chosen.paths.items():
        updates = float(path.updates.sum(axis=1).mean())
        there = own[(own["of_updates"] <= _SOON * updates) & (own["noise_scale_low"] > 0)]
        if len(there) and there["of_updates"].max() > updates / 2:
            measured = pd.concat([start, there], ignore_index=True)
            paths[goal] = path_of_kept_weights(updates, chosen.run["batch_size"], measured)
    if not paths:
        return chosen
    path = paths.get(chosen.run["goal"], chosen.path)
    return replace(chosen, path=path, paths={**chosen.paths, **paths}, kept=frozenset(paths))


def _asked(run: pd.DataFrame, name: str) -> Any:
    """A setting of the run; None where it has none, as in tables of several domains."""
    return run[name].iloc[0] if name in run and not pd.isna(run[name].iloc[0]) else None


def _chosen(runs: pd.DataFrame, split: list[Run], reached: pd.DataFrame, run_id: str | None) -> int:
    ids = [str(runs["run_id"].iloc[run.rows[0]]) for run in split]
    fixed = [run.number for run in split if not run.adaptive]
    if run_id is not None:
        matching = [run.number for run in split if ids[run.number].startswith(run_id)]
        if len(matching) != 1:
            raise ValueError(f"{len(matching)} runs begin with {run_id!r}: give more of the id")
        if split[matching[0]].adaptive:
            raise ValueError(f"run {run_id} has an adaptive batch: advise rests on a run with a fixed one")
        return matching[0]
    if not fixed:
        raise ValueError("all runs have an adaptive batch: advise rests on a run with a fixed one")
    there = reached[reached["run"].isin(fixed)].dropna(subset=["updates"])
    if there.empty:
        return max(fixed, key=lambda n: split[n].examples[-1])
    hardest = there.groupby("goal", sort=False)["updates"].min().idxmax()
    there = there[there["goal"] == hardest].sort_values("updates")
    best = there.drop_duplicates("batch_size")[["batch_size", "learning_rate", "setting"]]
    noise = NoiseRows(runs)
    return min((int(n) for n in there.merge(best)["run"]), key=lambda n: _relative_error(noise, split[n]))


def _relative_error(noise: NoiseRows, run: Run) -> float:
    rows = noise.usable(run.rows)
    if len(rows) < 2:
        return math.inf
    ratio = noise.ratio(rows)
    return ratio.standard_error / ratio.ratio if ratio.ratio > 0 else math.inf


def _rates(reached: pd.DataFrame, run: Run, goal: float | None) -> pd.DataFrame:
    """Learning rates at the run's batch size, each with its fewest updates to the goal."""
    same = reached[(reached["batch_size"] == run.batch_size) & (reached["setting"] == run.identity.setting)]
    if goal is None:
        rates = same[["learning_rate"]].drop_duplicates().assign(updates=math.nan)
    else:
        rates = same[same["goal"] == goal].groupby("learning_rate", as_index=False)["updates"].min()
    return pd.DataFrame(rates[["learning_rate", "updates"]]).reset_index(drop=True)


def has_gained(run: pd.DataFrame, measure: Measure) -> bool:
    """Whether the last third of a run's scores (or losses) is better than the first by three standard errors."""
    values = run[measure.quantity].to_numpy(np.float64)
    values = values[np.isfinite(values)] * (1 if measure.direction == "max" else -1)
    third = len(values) // 3
    if third < 2:
        return False
    early, late = values[:third], values[-third:]
    error = math.sqrt((early.var(ddof=1) + late.var(ddof=1)) / third)
    return bool(late.mean() - early.mean() > 3 * error)


def concerns(model: CostModel, chosen: ChosenRun) -> list[str]:
    """Why not to trust a forecast, each in a sentence; none where nothing speaks against it."""
    turn, run, found = CostModel(model.path, confidence=model.confidence).critical_batch, chosen.run, []
    if not run["gained"]:
        found.append("the score has not moved yet: the run is too short to say anything about learning")
    elif not run["goals"]:
        found.append("the run reached no goal: it is short, and the costs are those of getting where it ended")
    if run["measurements"] < _FEWEST_MEASUREMENTS:
        found.append(f"the noise scale was measured {run['measurements']:.0f} times: the run is too short")
    if not math.isfinite(turn.high):
        found.append(f"the noise scale is not resolved: B_crit is more than {turn.low:,.0f} {run['unit']}")
    elif turn.high > _WIDE * turn.low:
        found.append("the noise scale is known to its order of magnitude only")
    if len(model.path.inverse) == 1:
        found.append("the noise scale is known as one mean over the run: if it grew, B_crit is larger than this")
    found += _about_the_rate(float(run["learning_rate"]), chosen.rates)
    inverse = np.maximum(model.path.inverse, 0)
    half = len(inverse) // 2
    if half and inverse[-half:].mean() * _GREW < inverse[:half].mean():
        found.append("the noise scale was still growing: longer training can use larger batches than these")
    return found


def _about_the_rate(rate: float, rates: pd.DataFrame) -> list[str]:
    tried = rates.drop_duplicates("learning_rate")
    if len(tried) < 2:
        return ["one learning rate was tried at this batch size: nothing shows that it is a good one"]
    reached = tried.dropna(subset=["updates"])
    if reached.empty:
        return []
    best = reached.sort_values("updates").iloc[0]
    own = tried.loc[np.isclose(tried["learning_rate"], rate), "updates"]
    if own.isna().all() or float(own.min()) > _OFF * float(best["updates"]):
        return [
            f"learning rate {rate:g} is too far off: {best['learning_rate']:g} was faster, and the noise scale "
            "depends on it"
        ]
    if float(best["learning_rate"]) in (tried["learning_rate"].min(), tried["learning_rate"].max()):
        return ["the best learning rate lies at the edge of those tried: a better one may lie beyond"]
    return []


def beside_sweep(
    chosen: ChosenRun,
    throughput: Throughput | None,
    runs: pd.DataFrame,
    *,
    confidence: float,
    horizon: float,
    error: ScaleError | None = None,
) -> pd.DataFrame:
    """What a sweep measured beside what one of its runs predicts, for each goal of the run and each batch size.

    Args:
        chosen: the run.
        throughput: for hours; None where no times are known.
        runs: the sweep, with the run or without it, all of one task.
        error: see `CostModel`.

    Returns:
        goal, batch_size, own (it is the run's), learning_rate (the best), updates and hours (measured; updates as the
        geometric mean of the seeds, of which the run may be one), and under
        predicted_... the same with _low and _high; ratio (updates predicted over measured); critical_batch (fitted) and
        predicted_critical_batch with their intervals. No rows where no goal was reached at another batch size.
    """
    found: list[dict[str, object]] = []
    if not chosen.paths:
        return pd.DataFrame()
    fit = fit_runs(runs, list(chosen.paths), horizon=horizon, confidence=confidence)
    seconds = measured_throughput(runs).set_index("batch_size")["seconds"]
    turns = fit.fits.set_index("goal")
    for goal, path in chosen.paths.items():
        front = fit.fronts[fit.fronts["goal"] == goal]
        if not path.known or set(front["batch_size"]) <= {chosen.run["batch_size"]}:
            continue
        model = CostModel(path, throughput, confidence=confidence, error=error)
        turn = Estimate.of(turns.loc[goal].to_dict(), "critical_batch").columns("critical_batch")
        turn |= model.critical_batch.columns("predicted_critical_batch")
        for point in front.to_dict("records"):
            size, cost = point["batch_size"], model.cost(point["batch_size"])
            found.append(
                {
                    **{name: point[name] for name in ("goal", "batch_size", "learning_rate", "updates")},
                    "own": size == chosen.run["batch_size"],
                    "hours": point["updates"] * seconds.get(size, math.nan) / 3600,
                    "ratio": cost.updates.value / point["updates"],
                    **cost.updates.columns("predicted_updates"),
                    **cost.hours.columns("predicted_hours"),
                    **turn,
                }
            )
    return pd.DataFrame(found)


def predict_tasks(
    runs: pd.DataFrame,
    fits: pd.DataFrame,
    *,
    frozen: pd.DataFrame | None = None,
    confidence: float = 0.95,
    horizon: float = DEFAULT_HORIZON,
) -> list[PredictedTask]:
    """For each task with a swept B_crit, what the run that `choose_run` takes predicts for its hardest goal.

    The goal is the hardest that the run reached and whose B_crit is swept, by preference one whose prediction is
    resolved. Runs that use examples several times count too: B_simple is that of their first use.

    Args:
        runs: rows in the form of `rl_scaling.store.load_runs`.
        fits: `SweepFit.fits` of them.
        frozen: noise scales of kept weights, as in `with_kept_weights`, of any tasks; where a run has them, it is the
            one that is taken.
    """
    found = []
    for task, fitted in fits.groupby("task", sort=False):
        swept = {row["goal"]: Estimate.of(row, "critical_batch") for row in fitted.to_dict("records")}
        swept = {goal: turn for goal, turn in swept.items() if is_swept(turn)}
        rows = runs[runs["task"] == task].reset_index(drop=True)
        if not swept:
            continue
        kept = None if frozen is None else frozen[frozen["task"] == task]
        try:
            chosen = choose_run(rows, list(swept), run_id=measured_run(kept, rows), horizon=horizon, used_once=False)
        except ValueError:  # no noise scale, or no run with a fixed batch
            continue
        one = _prediction(rows, with_kept_weights(chosen, kept), swept, confidence)
        found += [one] if one else []
    return found


def _prediction(
    rows: pd.DataFrame, chosen: ChosenRun, swept: dict[float, Estimate], confidence: float
) -> PredictedTask | None:
    hardest_first = [goal for goal in reversed(chosen.run["goals"]) if chosen.paths[goal].known]
    resolved = [goal for goal in hardest_first if chosen.paths[goal].resolved]
    if not hardest_first:
        return None
    goal = (resolved or hardest_first)[0]
    path = chosen.paths[goal]
    value = predicted(path, lambda found: found.critical_batch, confidence=confidence)
    return PredictedTask(
        **{name: str(rows[name].iloc[0]) for name in ("task", "domain", "algorithm", "unit")},
        goal=goal,
        run_id=str(chosen.run["run_id"]),
        source=chosen.source_of(goal),
        swept=swept[goal],
        predicted=value if math.isfinite(value.high) else Estimate(math.nan, value.low, math.inf),
        path=path,
    )
