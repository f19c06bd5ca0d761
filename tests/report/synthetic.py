"""Invented runs for the tests of the report: scores that follow eq. 2.11 of McCandlish et al. 2018 exactly.

Nothing here was measured. A run with batch size B at the best learning rate reaches score g after
S_min(g) (1 + B_crit(g) / B) updates; a learning rate that is off by a factor r takes (1 + log2(r)^2 / 2) times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from rl_scaling.analysis import FIT_COLUMNS, SweepFit, TaskView
from rl_scaling.analysis.views import Findings
from rl_scaling.records import COLUMNS, Identity

INF = float("inf")
NAN = float("nan")
CRITICAL_AT_ONE = 60.0  # frames
STEPS_MIN_AT_ONE = 220.0  # updates


def critical_batch(goal: float | np.ndarray) -> float | np.ndarray:
    """B_crit in frames: grows with the score."""
    return CRITICAL_AT_ONE * np.asarray(goal, float) ** 0.9


def steps_min(goal: float | np.ndarray) -> float | np.ndarray:
    """S_min in updates."""
    return STEPS_MIN_AT_ONE * np.asarray(goal, float) ** 1.1


def best_rate(batch_size: int) -> float:
    """The best learning rate of a batch size (A.3 with alpha = 0.7)."""
    return 4e-3 / (1 + 640 / batch_size) ** 0.7


def slowdown(batch_size: int, learning_rate: float) -> float:
    """How many times longer a learning rate takes than the best one of its batch size."""
    return 1 + 0.5 * math.log2(learning_rate / best_rate(batch_size)) ** 2


def updates_to(goal: float, batch_size: int, learning_rate: float) -> float:
    """Updates until the score first reaches a goal."""
    exact = steps_min(goal) * (1 + critical_batch(goal) / batch_size) * slowdown(batch_size, learning_rate)
    return float(exact)


def _identity(task: str, batch_size: int, learning_rate: float, seed: int) -> Identity:
    problem, algorithm, variant, *_ = [*task.split(" ", 2), "", ""]
    return Identity(
        domain="rl",
        problem=problem,
        algorithm=algorithm,
        variant=variant,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )


def run_rows(
    batch_size: int,
    learning_rate: float,
    seed: int,
    *,
    frames: int = 2_000_000,
    rows: int = 120,
    task: str = "Breakout a2c network=small",
    status: str = "done",
    note: str = "",
    noise: bool = True,
) -> pd.DataFrame:
    """One run in the columns of `rl_scaling.store.load_runs`."""
    rng = np.random.default_rng([batch_size, int(learning_rate * 1e7), seed])
    updates = np.maximum(1, np.round(np.arange(1, rows + 1) * frames / rows / batch_size)).astype(int)
    goals = np.geomspace(0.3, 80, 300)
    needed = np.array([updates_to(g, batch_size, learning_rate) for g in goals])
    score = np.interp(updates, needed, goals)
    measurements = np.arange(1, rows + 1)
    true_noise = 0.8 * critical_batch(np.maximum(score, 0.5))
    half = 4 / np.sqrt(measurements) * (1 + batch_size / 4000)
    resolved = half < 1
    data = {name: np.zeros(rows) for name in COLUMNS} | {
        "updates": updates,
        "examples": updates * batch_size,
        "wall_seconds": updates * batch_size / 1200.0,
        "examples_per_second": 1200 + 40 * rng.standard_normal(rows),
        "episodes": rng.poisson(6, rows),
        "score": np.maximum(0, score + 0.25 * np.sqrt(score) * rng.standard_normal(rows)),
        "episode_frames": 200 + 20 * score,
        "entropy": 1.3 - 0.01 * score,
        "grad_norm": np.full(rows, 0.4),
        "current_learning_rate": np.full(rows, learning_rate),
        "noise_measurements": np.full(rows, 12 if noise else 0),
        "grad_sq_norm": np.full(rows, 0.01 if noise else NAN),
        "trace_cov": 0.01 * true_noise if noise else np.full(rows, NAN),
        "trace_cov_examples": 0.01 * true_noise / 3 if noise else np.full(rows, NAN),
        "noise_scale": np.where(resolved & noise, true_noise * np.exp(0.1 * rng.standard_normal(rows)), NAN),
        "noise_scale_low": np.where(noise, true_noise / (1 + half), NAN),
        "noise_scale_high": np.where(noise, np.where(resolved, true_noise / (1 - np.minimum(half, 0.99)), INF), NAN),
    }
    columns = {
        "run_id": f"{batch_size:05d}{int(learning_rate * 1e7):06d}{seed}",
        "store": "/synthetic",
        "status": status,
        "note": note,
        "task": task,
        **vars(_identity(task, batch_size, learning_rate, seed)),
        "environment.num_envs": batch_size // 5,
        "agent.rollout_steps": 5,
        "frames_asked": frames,
    }
    frame = pd.DataFrame(data)
    return pd.concat([pd.DataFrame(columns, index=frame.index), frame], axis="columns")


def sweep_rows(
    batch_sizes: Sequence[int] = (20, 40, 80, 160, 320, 640, 1280, 2560),
    factors: Sequence[float] = (0.5, 1.0, 2.0),
    seeds: Sequence[int] = (0, 1),
    **options: Any,
) -> pd.DataFrame:
    """A whole sweep: learning rates are `factors` times the best one; `options` go to `run_rows`."""
    trials = [(b, best_rate(b) * factor, seed) for b in batch_sizes for factor in factors for seed in seeds]
    return pd.concat([run_rows(*trial, **options) for trial in trials], ignore_index=True)


FRONT_COLUMNS = [
    *("task", "goal", "batch_size", "learning_rate", "setting", "updates", "examples", "seeds"),
    *("at_edge", "at_start"),
]
RATE_COLUMNS = ["task", "goal", "batch_size", "learning_rate", "setting", "updates", "status"]
_FIT = {
    "unit": "frames",
    "quantity": "score",
    "steps_min": NAN,
    "log_steps_min_se": NAN,
    "examples_min": NAN,
    "log_examples_min_se": NAN,
    "critical_batch": NAN,
    "critical_batch_low": NAN,
    "critical_batch_high": NAN,
    "log_critical_batch_se": NAN,
    "confidence": 0.95,
    "interval": "residuals",
    "status": "not reached",
    "message": "no run reached this goal",
    "batch_sizes": 0,
    "noise_scale": NAN,
    "noise_scale_low": NAN,
    "noise_scale_high": NAN,
    "noise_scale_reuse": NAN,
    "noise_scale_reuse_low": NAN,
    "noise_scale_reuse_high": NAN,
    "noise_scale_mean": NAN,
    "noise_scale_mean_low": NAN,
    "noise_scale_mean_high": NAN,
    "design_effect": NAN,
}


def view_of(runs: pd.DataFrame, **tables: pd.DataFrame) -> TaskView:
    """The view of runs of one task, with some tables of the fit as given."""
    (view,) = Findings(runs=runs, fit=known_fit(runs, [])).tasks()
    found = replace(view.found, fit=replace(view.found.fit, **tables))
    return replace(view, found=found)


def known_fit(runs: pd.DataFrame, goals: Sequence[float]) -> SweepFit:
    """The exact answer for runs made by `run_rows`."""
    setting = ["task", "batch_size", "learning_rate", "setting"]
    trials = runs.groupby(setting).agg(examples=("examples", "max"), seeds=("seed", "nunique")).reset_index()
    rows = []
    for goal in goals:
        for trial in trials.to_dict("records"):
            needed = updates_to(goal, trial["batch_size"], trial["learning_rate"])
            reached = needed * trial["batch_size"] <= trial["examples"]
            status = "reached" if reached else "not reached"
            rows.append(trial | {"goal": goal, "updates": needed if reached else NAN, "status": status})
    rates = pd.DataFrame(rows, columns=pd.Index([*trials.columns, "goal", "updates", "status"]))
    rates["examples"] = rates["updates"] * rates["batch_size"]
    reached = rates.dropna(subset=["updates"]).sort_values("updates")
    fronts = reached.drop_duplicates(["task", "goal", "batch_size"]).sort_values(["task", "goal", "batch_size"])
    ends = trials.groupby(["task", "batch_size"])["learning_rate"].agg(["min", "max"])
    grid = fronts.join(ends, on=["task", "batch_size"])
    fronts["at_edge"] = (grid["learning_rate"] == grid["min"]) | (grid["learning_rate"] == grid["max"])
    fits = [
        {"task": task, "goal": goal} | _FIT | _known_row(goal, fronts[(fronts.task == task) & (fronts.goal == goal)])
        for task in sorted(runs["task"].unique())
        for goal in goals
    ]
    fronts["at_start"] = False
    return SweepFit(fronts[FRONT_COLUMNS], rates[RATE_COLUMNS], pd.DataFrame(fits, columns=pd.Index(FIT_COLUMNS)))


def _known_row(goal: float, front: pd.DataFrame) -> dict[str, Any]:
    turn, steps = float(critical_batch(goal)), float(steps_min(goal))
    sizes = len(front)
    if sizes == 0:
        return {}
    noise = {
        "noise_scale": 0.8 * turn if goal > 2 else NAN,
        "noise_scale_low": 0.5 * turn,
        "noise_scale_high": 1.4 * turn if goal > 2 else INF,
        "noise_scale_mean": 0.6 * turn,
        "noise_scale_mean_low": 0.3 * turn,
        "noise_scale_mean_high": 1.1 * turn,
        "design_effect": 3.1,
        "batch_sizes": sizes,
    }
    if sizes < 3:
        return noise | {"status": "too few batch sizes", "message": f"{sizes} batch sizes reached it; 3 are needed"}
    if front["batch_size"].max() < turn:
        return noise | {
            "status": "all below the turn",
            "message": "even the largest batch still saves updates in proportion",
            "critical_batch_low": 0.7 * turn,
            "critical_batch_high": INF,
        }
    return noise | {
        "steps_min": steps,
        "examples_min": steps * turn,
        "critical_batch": turn,
        "critical_batch_low": turn / 1.3,
        "critical_batch_high": turn * 1.35,
        "status": "ok",
        "message": "",
    }
