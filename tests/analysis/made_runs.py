"""Runs made up for tests, in the form of `rl_scaling.store.load_runs`, with an answer that is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rl_scaling.records import COLUMNS

TASK = "Made a2c"


def made_run(batch_size: int, learning_rate: float, seed: int, **columns: Any) -> pd.DataFrame:
    """One run; `columns` holds scalars or one value per row, at least updates, score and episodes."""
    status, task = columns.pop("status", "done"), columns.pop("task", TASK)
    rows = len(columns["updates"])
    table = pd.DataFrame({name: np.zeros(rows) for name in COLUMNS} | columns)
    table["examples"] = columns.get("examples", table["updates"] * batch_size)
    run_id = columns.get("run_id", f"{task}-{batch_size}-{learning_rate}-{seed}")
    identity = {"run_id": run_id, "store": "s", "status": status, "note": "", "task": task}
    identity |= {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "setting": columns.get("setting", ""),
        "seed": seed,
    }
    identity |= {"unit": "frames", "quantity": "score"}
    table = table.drop(columns=["run_id", "setting"], errors="ignore")
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


def off_by(rate: float, best: float) -> float:
    """How many times longer a learning rate takes than the best one."""
    return math.exp(0.3 * math.log(rate / best) ** 2)
