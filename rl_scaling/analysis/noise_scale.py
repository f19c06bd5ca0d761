"""The simple noise scale of phases of training, pooled over runs.

B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, eq. 2.9). Both moments are averaged over all rows of a phase, from
all runs, before they are divided: a ratio of sums, never a mean of ratios. Each row weighs as many examples as its
measurements used, because |G|^2 comes out more precisely from a large batch. The interval comes from blocks of
rows, so it contains what differs between runs as well as the noise within them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.analysis.fronts import Run, split_runs
from rl_scaling.analysis.goals import DEFAULT_HORIZON
from rl_scaling.estimates import Estimate
from rl_scaling.statistics.jackknife import RatioEstimate, invert, ratio_of_means

NOISE_COLUMNS = ("noise_measurements", "grad_sq_norm", "trace_cov", "trace_cov_examples")


@dataclass(frozen=True)
class PooledNoise(Estimate):
    """The noise scale of a phase: B_simple in examples.

    Attributes:
        design_effect: tr(Sigma) of whole environments over that of examples as if independent; NaN if not measured.
        measurements: updates in which it was measured.
    """

    design_effect: float = math.nan
    measurements: int = 0


# Degrees of freedom of what has no error.
CERTAIN = 1e9
NOTHING = PooledNoise(math.nan, math.nan, math.nan)


class NoiseRows:
    """The columns of a table of runs that the noise scale needs.

    Args:
        runs: one row per record.
        part: a term of the gradient (`rl_scaling.records.PARTS`) instead of the whole; it has no design effect.

    Raises:
        ValueError: a column is missing.
    """

    def __init__(self, runs: pd.DataFrame, part: str | None = None) -> None:
        if part is not None:
            names = {f"{part}_{name}": name for name in ("grad_sq_norm", "trace_cov")}
            runs = runs.drop(columns=list(names.values())).rename(columns=names).assign(trace_cov_examples=math.nan)
        missing = [name for name in NOISE_COLUMNS if name not in runs.columns]
        if missing:
            raise ValueError(f"the runs have no column {', '.join(missing)}: give the table that load_runs returns")
        columns = (runs[name].to_numpy(np.float64) for name in NOISE_COLUMNS)
        self._measurements, self._grad_sq_norm, self._trace_cov, self._trace_examples = columns
        self._weights = self._measurements * batch_sizes(runs)
        # An exact run (of the noisy quadratic model) says the noise scale without an interval.
        told = [runs[name].notna().to_numpy() if name in runs else False for name in ("noise_scale", "noise_scale_low")]
        self._exact = np.full(len(runs), told[0]) & ~np.full(len(runs), told[1])

    def exact(self, rows: NDArray[np.intp]) -> bool:
        """Whether the moments in these rows are known and not measured."""
        return bool(self._exact[rows].all())

    def usable(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the rows in which the noise scale was measured."""
        measured = np.isfinite(self._grad_sq_norm[rows]) & np.isfinite(self._trace_cov[rows])
        return rows[measured & (self._weights[rows] > 0)]

    def ratio(self, rows: NDArray[np.intp], confidence: float = 0.95) -> RatioEstimate:
        """1/B_simple over `usable` rows, one or more, those of a run together and in order."""
        squares, trace, weights = self._grad_sq_norm[rows], self._trace_cov[rows], self._weights[rows]
        if self.exact(rows):
            return RatioEstimate(float(weights @ squares) / float(weights @ trace), 0.0, 0.0, CERTAIN, 0.0)
        return ratio_of_means(squares, trace, weights, confidence=confidence)

    def pool(self, rows: NDArray[np.intp], confidence: float = 0.95) -> PooledNoise:
        """B_simple over rows of the table, those of a run together and in order."""
        kept = self.usable(rows)
        if len(kept) == 0:
            return NOTHING
        scale = invert(self.ratio(kept, confidence))
        more = {"design_effect": self._design_effect(kept), "measurements": int(self._measurements[kept].sum())}
        return PooledNoise(scale.value, scale.low, scale.high, **more)

    def _design_effect(self, rows: NDArray[np.intp]) -> float:
        kept = rows[np.isfinite(self._trace_examples[rows])]
        single = float(self._weights[kept] @ self._trace_examples[kept])
        return float(self._weights[kept] @ self._trace_cov[kept]) / single if single > 0 else math.nan


def batch_sizes(runs: pd.DataFrame) -> NDArray[np.float64]:
    """(rows,) the batch size of every row: that of the run unless it changed on the way."""
    fixed = runs["batch_size"].to_numpy(np.float64)
    if "current_batch_size" not in runs.columns:
        return fixed
    current = runs["current_batch_size"].to_numpy(np.float64)
    return np.where(np.isfinite(current) & (current > 0), current, fixed)


def phase_rows(runs: list[Run], ends: Iterable[tuple[int, int, int]]) -> NDArray[np.intp]:
    """Positions in the table of the rows on the way to a goal.

    Args:
        ends: number of a run, the row by which it had reached the goal before (-1: none before), and the row by
            which it reached this one. Where both are the same row, that row is taken.
    """
    parts = [runs[number].rows[min(before + 1, row) : row + 1] for number, before, row in ends]
    return np.concatenate(parts) if parts else np.array([], dtype=np.intp)


def noise_over_training(
    runs: pd.DataFrame, *, bins: int = 12, confidence: float = 0.95, horizon: float = DEFAULT_HORIZON
) -> pd.DataFrame:
    """B_simple over training, pooled over the runs of each task in bins of equally many examples since the start.

    The noise scale depends on the learning rate (M18, appendix C): give well-tuned runs, such as those of a front.

    Args:
        runs: rows in the form of `rl_scaling.store.load_runs`.
        horizon: of the smoothed score, in episodes.

    Returns:
        One row for each task and bin with measurements: task, bin_low and bin_high (examples), noise_scale (examples;
        NaN while unresolved), noise_scale_low, noise_scale_high, design_effect, measurements.

    Raises:
        ValueError: a column is missing, or fewer bins than one.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}: give 1 or more")
    split, table = split_runs(runs, horizon=horizon), NoiseRows(runs)
    examples = runs["examples"].to_numpy(np.float64)
    found: list[dict[str, object]] = []
    for task in sorted({run.task for run in split}):
        rows = np.concatenate([run.rows for run in split if run.task == task])
        edges = np.linspace(0.0, float(examples[rows].max()), bins + 1)
        bin_of = np.searchsorted(edges[1:-1], examples[rows], side="left")  # an edge belongs to the bin below it
        for number, (low, high) in enumerate(pairwise(edges.tolist())):
            pooled = table.pool(rows[bin_of == number], confidence)
            if pooled.measurements:
                row: dict[str, object] = {"task": task, "bin_low": low, "bin_high": high}
                found.append(row | noise_columns(pooled))
    return pd.DataFrame(found, columns=pd.Index(["task", "bin_low", "bin_high", *noise_columns(NOTHING)]))


def noise_columns(pooled: PooledNoise) -> dict[str, float]:
    """A pooled noise scale under the column names of the tables."""
    more = {"design_effect": pooled.design_effect, "measurements": pooled.measurements}
    return pooled.columns("noise_scale") | more
