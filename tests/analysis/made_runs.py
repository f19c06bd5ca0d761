"""Runs made up for tests, in the form of `rl_scaling.store.load_runs`, with an answer that is known exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rl_scaling.analysis.fronts import best_rates, rate_table, reaches, seed_table, split_runs
from rl_scaling.analysis.goals import (
    DEFAULT_HORIZON,
    Goals,
    first_reach,
    ordered_goals,
    smooth_together,
    smoothed_curve,
)
from rl_scaling.records import COLUMNS, REUSE, Direction, Identity

TASK = "Made a2c"
_IDENTITY = {field.name for field in dataclasses.fields(Identity)}


def made_run(batch_size: int, learning_rate: float, seed: int, **columns: Any) -> pd.DataFrame:
    """One run; `columns` holds scalars or one value per row, at least updates, score and episodes."""
    status, task = columns.pop("status", "done"), columns.pop("task", TASK)
    rows = len(columns["updates"])
    unused = {f"{REUSE}_{name}": np.full(rows, math.nan) for name in ("grad_sq_norm", "trace_cov")}
    table = pd.DataFrame({name: np.zeros(rows) for name in COLUMNS} | unused | columns)
    table["examples"] = columns.get("examples", table["updates"] * batch_size)
    run_id = columns.get("run_id", f"{task}-{batch_size}-{learning_rate}-{seed}")
    identity = {"run_id": run_id, "store": "s", "status": status, "note": "", "task": task}
    own = {name: columns.pop(name) for name in _IDENTITY & columns.keys()}
    names = {"domain": "rl", "problem": task, "algorithm": ""} | own
    identity |= vars(Identity(batch_size=batch_size, learning_rate=learning_rate, seed=seed, **names))
    table = table.drop(columns=[*identity], errors="ignore")
    for place, (name, value) in enumerate(identity.items()):
        table.insert(place, name, value)
    return table


def made_loss_run(batch_size: int, rows: pd.DataFrame, setting: str = "") -> pd.DataFrame:
    """One run that brings a loss down, with columns updates and loss."""
    run = made_run(batch_size, 0.1, 0, updates=rows["updates"], run_id=f"{batch_size} {setting}")
    run["loss"] = rows["loss"]
    return run.assign(setting=setting, unit="examples", quantity="loss")


def steady_run(
    batch_size: int, learning_rate: float, seed: int, updates_per_point: float, last: float, **columns: Any
) -> pd.DataFrame:
    """A run whose score rises steadily, one point in `updates_per_point` updates, up to `last` points in 60 rows."""
    updates = np.linspace(0, last * updates_per_point, 61)[1:]
    return made_run(
        batch_size, learning_rate, seed, updates=updates, score=updates / updates_per_point, episodes=9, **columns
    )


def steady_sweep(
    updates_per_point: Callable[[int, float, int], float],
    *,
    batch_sizes: Sequence[int],
    rates: Sequence[float] = (1e-3,),
    seeds: Sequence[int] = (0,),
    last: float = 10.0,
    **columns: Any,
) -> pd.DataFrame:
    """Steady runs for every batch size, learning rate and seed."""
    runs = [
        steady_run(batch, rate, seed, updates_per_point(batch, rate, seed), last, **columns)
        for batch in batch_sizes
        for rate in rates
        for seed in seeds
    ]
    return pd.concat(runs, ignore_index=True)


def run_along(
    batch_of: Callable[[float], float],
    noise_scale: Callable[[float], float],
    *,
    steps: float = 1000.0,
    points: float = 10.0,
    rows: int = 100,
    measurement_error: float = 0.0,
    seed: int = 0,
    **columns: Any,
) -> pd.DataFrame:
    """A run as M18, D.1, has it: after s noise-free steps the noise scale is N(s), the batch B(N), du = (1 + N/B) ds.

    Args:
        batch_of: batch size at a noise scale.
        noise_scale: N as a function of s / steps.
        steps: noise-free steps of the run, over which the score rises evenly by `points`.
        rows: evenly spaced in s.
        measurement_error: standard deviation of a row's |G|^2 / tr(Sigma) about the truth, in units of 1 / B.
        seed: of the errors.
    """
    fine = 50
    s = (np.arange(rows * fine) + 0.5) / (rows * fine)
    noise = np.array([noise_scale(x) for x in s])
    batch = np.array([batch_of(n) for n in noise])
    each = (1 + noise / batch) * steps / len(s)
    updates, examples = (np.cumsum(x)[fine - 1 :: fine] for x in (each, each * batch))
    inverse = (1 / noise).reshape(rows, fine).mean(axis=1)
    sizes = batch.reshape(rows, fine).mean(axis=1)
    error = measurement_error / sizes * np.random.default_rng(seed).standard_normal(rows)
    columns = {"updates": updates, "examples": examples, "score": points * np.arange(1, rows + 1) / rows} | columns
    measured = {"noise_measurements": 5, "grad_sq_norm": inverse + error, "trace_cov": 1.0, "current_batch_size": sizes}
    return made_run(round(sizes[0]), 1e-3, seed, episodes=100, **measured, **columns)


def adaptive_run_along(exchange_rate: float, noise_scale: Callable[[float], float], **options: Any) -> pd.DataFrame:
    """A run whose batch is sqrt(r N) (D.3) all the time."""
    setting = f"adaptive r={exchange_rate:g}"
    run = run_along(lambda n: math.sqrt(exchange_rate * n), noise_scale, run_id=setting, setting=setting, **options)
    return run.assign(exchange_rate=exchange_rate)


def off_by(rate: float, best: float) -> float:
    """How many times longer a learning rate takes than the best one."""
    return math.exp(0.3 * math.log(rate / best) ** 2)


def smooth(
    scores: Sequence[float],
    episodes: Sequence[float],
    *,
    horizon: float = DEFAULT_HORIZON,
) -> np.ndarray:
    """The smoothed score after every row of one run; NaN for rows without episodes."""
    values, counts = np.asarray(scores, dtype=float), np.asarray(episodes, dtype=float)
    observed = np.where(np.isfinite(values), counts, 0)
    return smooth_together([values], observed, horizon=horizon)[0]


def reach(
    run: pd.DataFrame, goals: Sequence[float], *, direction: Direction = "max", horizon: float = DEFAULT_HORIZON
) -> pd.DataFrame:
    """Where one run reached each goal, the easiest first: goal, updates, examples (NaN where not) and at_start."""
    wanted = ordered_goals(goals, direction)
    columns = (run[name].to_numpy(float) for name in ("updates", "examples", "score", "episodes"))
    found = first_reach(smoothed_curve(*columns, horizon=horizon), wanted, direction)
    rows = [(math.nan, math.nan, False) if hit is None else (hit.updates, hit.examples, hit.at_start) for hit in found]
    table = pd.DataFrame(rows, columns=["updates", "examples", "at_start"])
    table.insert(0, "goal", wanted)
    return table


def front(runs: pd.DataFrame, goals: Goals, *, horizon: float = DEFAULT_HORIZON) -> pd.DataFrame:
    """The front of fixed batch sizes, as `fit_runs` has it."""
    split = [run for run in split_runs(runs, horizon=horizon) if not run.adaptive]
    return best_rates(rate_table(seed_table(reaches(split, goals))))
