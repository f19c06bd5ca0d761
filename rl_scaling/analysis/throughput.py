"""Seconds per update against batch size: overhead + per_example * B, with what is not known about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rl_scaling.analysis.fronts import is_adaptive
from rl_scaling.analysis.noise_path import DRAWS, FloatArray
from rl_scaling.estimates import Estimate

# Medians of a few rows agree with each other better than the same machine does with itself a minute later.
_LEAST_ERROR = 0.02


@dataclass(frozen=True)
class Throughput:
    """A straight line through measured times.

    Attributes:
        overhead: seconds that an update takes however small the batch.
        per_example: seconds that each further example (frame) takes.
        draws: (DRAWS, 2) the two as they might be as well.
        batch: (m,) the batch sizes that were measured, ascending.
        seconds: (m,) what an update took there.
    """

    overhead: float
    per_example: float
    draws: FloatArray
    batch: FloatArray
    seconds: FloatArray

    def seconds_per_update(self, batch: FloatArray | float) -> FloatArray | float:
        """By the line."""
        return self.overhead + self.per_example * batch

    def drawn(self, batch: FloatArray | float) -> FloatArray:
        """(DRAWS,) seconds per update at a batch size, which may be drawn too."""
        return self.draws[:, 0] + self.draws[:, 1] * batch


def fit_throughput(points: pd.DataFrame, *, seed: int = 0) -> Throughput:
    """The line through times at two batch sizes or more, by least squares of relative errors, neither part negative.

    With three batch sizes or more the errors are as large as the scatter about the line asks for.

    Args:
        points: batch_size, seconds (per update) and error (relative) of each measurement.

    Raises:
        ValueError: fewer than two batch sizes.
    """
    points = points.sort_values("batch_size")
    batch, seconds = points["batch_size"].to_numpy(np.float64), points["seconds"].to_numpy(np.float64)
    if len(np.unique(batch)) < 2:
        raise ValueError("times are known at one batch size only: measure another, for instance with --probe")
    errors = np.maximum(points["error"].fillna(0).to_numpy(np.float64), _LEAST_ERROR)
    best = _line(batch, seconds, errors)
    freedom = len(batch) - 2
    if freedom:
        residuals = (best[0] + best[1] * batch) / seconds - 1
        errors = errors * max(1.0, math.sqrt(float(np.sum((residuals / errors) ** 2)) / freedom))
    rng = np.random.default_rng(seed)
    others = seconds * np.exp(errors * rng.standard_normal((DRAWS, len(batch))))
    return Throughput(float(best[0]), float(best[1]), _line(batch, others, errors), batch, seconds)


def _line(batch: FloatArray, seconds: FloatArray, errors: FloatArray) -> FloatArray:
    """(..., 2) least squares of relative errors for (..., m) seconds; a part that would be negative is 0."""
    p = 1 / (errors * seconds)
    q, y = p * batch, 1 / errors
    pp, qq, pq = ((x * z).sum(axis=-1) for x, z in ((p, p), (q, q), (p, q)))
    py, qy = (p * y).sum(axis=-1), (q * y).sum(axis=-1)
    determinant = pp * qq - pq**2
    both = np.stack([py * qq - qy * pq, qy * pp - py * pq], axis=-1) / determinant[..., None]
    nothing = np.zeros_like(py)
    steep, flat = np.stack([nothing, qy / qq], axis=-1), np.stack([py / pp, nothing], axis=-1)
    return np.where(both[..., :1] < 0, steep, np.where(both[..., 1:] < 0, flat, both))


def measured_throughput(runs: pd.DataFrame) -> pd.DataFrame:
    """Seconds per update at every batch size of a table of runs, as `fit_throughput` takes them.

    From the median row of each run; the error is that of the median where there is one run, and otherwise what the runs
    of a batch size differ by. Runs with an adaptive batch, whose rows differ in their batch, are left out.
    """
    rows = runs[~is_adaptive(runs) & (runs["examples_per_second"] > 0)]
    seconds = rows["batch_size"] / rows["examples_per_second"]
    each = seconds.map(math.log).groupby([rows["batch_size"], rows["store"], rows["run_id"]])
    table = pd.DataFrame(
        {"middle": each.median(), "spread": each.std() / np.sqrt(each.size()) * math.sqrt(math.pi / 2)}
    )
    found = []
    for size, part in table.groupby("batch_size"):
        several = len(part) > 1
        error = part["middle"].std() / math.sqrt(len(part)) if several else part["spread"].iloc[0]
        found.append({"batch_size": size, "seconds": math.exp(part["middle"].mean()), "error": error})
    return pd.DataFrame(found, columns=pd.Index(["batch_size", "seconds", "error"]))


def throughput_by_batch_size(runs: pd.DataFrame) -> pd.DataFrame:
    """Speed and cost of every batch size.

    Args:
        runs: one row per run of one task, `Series.runs`.

    Returns:
        batch_size, num_envs (NaN where the runs differ or have none), runs, examples_per_second (median over runs)
        with _low and _high (the range), updates_per_second, examples and wall_seconds (totals).
    """
    rows = []
    for size, part in runs.groupby("batch_size"):
        speeds, environments = part["examples_per_second"].dropna(), part["num_envs"].dropna().unique()
        uses = (part["examples_used"] / part["examples"]).median()
        middle = float(speeds.median()) if len(speeds) else math.nan
        row: dict[str, float] = {
            "batch_size": float(str(size)),
            "num_envs": float(environments[0]) if len(environments) == 1 else math.nan,
            "runs": len(part),
            "updates_per_second": middle * (uses if uses > 0 else 1.0) / float(str(size)),
            "examples": float(part["examples"].sum()),
            "wall_seconds": float(part["wall_seconds"].sum()),
        }
        rows.append(row | Estimate(middle, speeds.min(), speeds.max()).columns("examples_per_second"))
    return pd.DataFrame(rows)
