"""Noise scales that were measured with the weights kept, apart from the runs that learn.

Such a measurement is a run of its own in the store, in which nothing is learned (`Identity.frozen`): its rows are
estimates of one and the same B_simple and B_noise, so that all of them count alike. Beside it the noise scale that a
meter shows while a job runs is a moving average over weights that change.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.analysis.noise_scale import NoiseRows
from rl_scaling.estimates import UNKNOWN, Estimate, columns_of
from rl_scaling.records import FROZEN, PARTS
from rl_scaling.statistics.jackknife import invert, ratio_of_means

COLUMNS = (
    "run_id",
    "store",
    "status",
    "task",
    "problem",
    "algorithm",
    "place",
    "goal",
    "of_run",
    "of_updates",
    "of_frames",
    "batch_size",
    "learning_rate",
    "seed",
    "frames",
    "measurements",
    *columns_of("noise_scale"),
    *(column for part in PARTS for column in columns_of(f"{part}_noise_scale")),
    "design_effect",
    *columns_of("hessian_noise_scale"),
    "score",
    "confidence",
)
_FROM_CONFIG = {"config.of_run": "", "config.of_updates": 0, "config.of_frames": 0, "config.goal": math.nan}


def is_frozen(runs: pd.DataFrame) -> NDArray[np.bool_]:
    """(rows,) whether a row of `rl_scaling.store.load_runs` was measured with the weights kept."""
    variants = {v: FROZEN in str(v).split() for v in runs["variant"].unique()} if "variant" in runs else {}
    return runs["variant"].map(variants).to_numpy(bool) if variants else np.zeros(len(runs), bool)


def that_learn(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs in which something is learned."""
    frozen = is_frozen(runs)
    return runs[~frozen].reset_index(drop=True) if frozen.any() else runs


def task_of(label: str) -> str:
    """The task whose agent a measurement looks at, from the measurement's own label.

    >>> task_of("Breakout a2c frozen network=small")
    'Breakout a2c network=small'
    """
    return " ".join(word for word in label.split() if word != FROZEN)


def frozen_noise_scales(runs: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """B_simple, its parts and B_noise of every measurement with the weights kept.

    Args:
        runs: rows in the form of `rl_scaling.store.load_runs`; those of runs that learn are left out.
        confidence: of the intervals.

    Returns:
        One row for each measurement, sorted by task, frames of the run that it looks at, and seed: `COLUMNS`. The task
        is that of the agent, so that it can be found among the fits of runs; place says where in training in words,
        goal (NaN: none), of_run ("": the start), of_updates and of_frames in numbers; frames are those measured with;
        noise scales are in frames, NaN while unresolved; design_effect is tr(Sigma) of whole environments over that of
        single frames; score is the mean over games that ended.
    """
    frozen = runs[is_frozen(runs)].reset_index(drop=True)
    found = [_row(part.reset_index(drop=True), confidence) for _, part in frozen.groupby(["store", "run_id"])]
    table = pd.DataFrame(found, columns=pd.Index(COLUMNS))
    # A label may say more of a run that learns, such as the length of its schedules.
    if len(table) and (table["of_run"] != "").any():
        labels = runs.drop_duplicates("run_id").set_index("run_id")["task"]
        table["task"] = table["of_run"].map(labels).fillna(table["task"])
    return table.sort_values(["task", "of_frames", "seed"], kind="stable").reset_index(drop=True)


def _row(rows: pd.DataFrame, confidence: float) -> dict[str, object]:
    first, everything = rows.iloc[0], np.arange(len(rows))
    whole = NoiseRows(rows).pool(everything, confidence)
    parts = {part: NoiseRows(rows, part).pool(everything, confidence) for part in PARTS}
    config = {name.removeprefix("config."): _known(first, name, default) for name, default in _FROM_CONFIG.items()}
    games = rows["episodes"].to_numpy(float)
    scores = np.where(games > 0, rows["score"].to_numpy(float), 0.0)
    return {
        **{name: first[name] for name in COLUMNS if name in first.index},
        **config,
        "task": task_of(str(first["task"])),
        "place": first["setting"],
        "frames": int(rows["examples"].iloc[-1]),
        "measurements": whole.measurements,
        **Estimate(whole.value, whole.low, whole.high).columns("noise_scale"),
        **{
            name: value for part, scale in parts.items() for name, value in scale.columns(f"{part}_noise_scale").items()
        },
        "design_effect": whole.design_effect,
        **_hessian_noise_scale(rows, confidence).columns("hessian_noise_scale"),
        "score": float(games @ scores / games.sum()) if games.sum() else math.nan,
        "confidence": confidence,
    }


def _known(row: pd.Series, name: str, default: object) -> object:
    value = row.get(name, default)
    return default if value is None or value is pd.NA or value != value else value


def _hessian_noise_scale(rows: pd.DataFrame, confidence: float) -> Estimate:
    """B_noise = tr(H Sigma) / (G^T H G) (M18, 2.8): both are averaged over all rows and divided once."""
    along_gradient, along_noise = (rows[name].to_numpy(float) for name in ("grad_curvature", "noise_curvature"))
    known = np.isfinite(along_gradient) & np.isfinite(along_noise)
    if not known.any():
        return UNKNOWN
    return invert(ratio_of_means(along_gradient[known], along_noise[known], confidence=confidence))
