"""Batch sizes that followed the noise scale, beside the front of fixed ones (McCandlish et al. 2018, appendix D).

What an adaptive batch can gain is gamma of D.5, predicted from the noise scale over training
(`rl_scaling.analysis.course`); what it did gain is (S/S_min - 1)(E/E_min - 1) with S and E of the adaptive run and
S_min and E_min fitted to the fixed ones. A fixed batch has 1, and less is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.analysis.course import DRAWS, UNKNOWN, Course, Estimate, percentiles, predicted_gamma
from rl_scaling.analysis.fronts import CELL, Run
from rl_scaling.analysis.noise_scale import NoiseRows

FloatArray = NDArray[np.float64]

GAMMA_PREDICTED = ("gamma_predicted", "gamma_predicted_low", "gamma_predicted_high")
GAMMA_OBSERVED = ("gamma_observed", "gamma_observed_low", "gamma_observed_high")
ADAPTIVE_COLUMNS = [
    *CELL[:2],
    *CELL[3:],
    "seeds",
    "batch_size",
    "updates",
    "examples",
    *GAMMA_OBSERVED,
    *GAMMA_PREDICTED,
]
# The way to a goal is cut into so many stretches; one with too few rows with measurements is joined to the next.
STRETCHES = 8
FEWEST_ROWS = 6


def course_to_goal(noise: NoiseRows, runs: Sequence[Run], reached: pd.DataFrame, goal: float) -> Course:
    """The noise scale on the way to a goal, pooled over runs that are equally far.

    How far a run is, is told by the goals it has reached, and between two goals by its updates: what runs of other
    batch sizes have in common there is the score, not the number of updates.

    Args:
        noise: of the table of all runs.
        runs: all runs.
        reached: rows of `fronts.reaches` of one task, of those runs alone that are to be pooled.
        goal: all of them have reached it.
    """
    row = reached.loc[reached["goal"] == goal].groupby("run")["row"].max()
    before = reached[reached["run"].isin(row.index) & (reached["row"] >= 0)]
    before = before[before["row"] <= before["run"].map(row)].sort_values(["run", "updates"])
    common = before["goal"].value_counts()
    marks = before[before["goal"].isin(common.index[common == len(row)])]
    paths = [part[["updates", "examples", "row"]].to_numpy(np.float64) for _, part in marks.groupby("run")]
    if not paths:
        return Course.of(np.zeros((0, 0)), np.zeros((0, 0)), [])
    # From the start of training, where row -1 would be, to the goal.
    edges = np.stack([_places(np.vstack([[0.0, 0.0, -1.0], path])) for path in paths])
    numbers = [int(number) for number in marks["run"].unique()]
    return _joined(noise, [runs[number] for number in numbers], edges)


def _places(marks: FloatArray) -> FloatArray:
    """(STRETCHES + 1, 3) updates, examples and row where stretches begin, evenly spaced over the marks (m, 3)."""
    at = np.linspace(0, len(marks) - 1, STRETCHES + 1)
    return np.stack([np.interp(at, np.arange(len(marks)), column) for column in marks.T], axis=1)


def _joined(noise: NoiseRows, runs: list[Run], edges: FloatArray) -> Course:
    """Stretches with enough rows, from (runs, STRETCHES + 1, 3) edges."""
    rows = np.floor(edges[:, :, 2]).astype(np.intp) + 1
    kept, pooled = [0], []
    for last in range(1, edges.shape[1]):
        inside = [run.rows[ends[kept[-1]] : ends[last]] for run, ends in zip(runs, rows, strict=True)]
        usable = noise.usable(np.concatenate(inside))
        if len(usable) >= FEWEST_ROWS:
            kept.append(last)
            pooled.append(usable)
    if not pooled:
        return Course.of(np.zeros((0, 0)), np.zeros((0, 0)), [])
    if kept[-1] != edges.shape[1] - 1:  # too few rows are left behind: they belong to the last stretch
        kept[-1] = edges.shape[1] - 1
        first = [ends[kept[-2]] for ends in rows]
        inside = [run.rows[a : ends[-1]] for run, a, ends in zip(runs, first, rows, strict=True)]
        pooled[-1] = noise.usable(np.concatenate(inside))
    updates, examples = (np.diff(edges[:, kept, column], axis=1) for column in (0, 1))
    examples = examples * np.array([[run.uses] for run in runs])
    sizes = np.array([[float(run.batch_size)] for run in runs])
    batch = np.divide(examples, updates, out=np.broadcast_to(sizes, updates.shape).copy(), where=updates > 0)
    return Course.of(updates, batch, [noise.ratio(found) for found in pooled])


def observed_gamma(updates: float, examples: float, fit: pd.Series, *, confidence: float = 0.95) -> Estimate:
    """(S/S_min - 1)(E/E_min - 1) of a run, with the interval that the errors of S_min and E_min give it.

    Where the run needed fewer updates than S_min, or fewer examples than E_min, it is 0. Its own scatter over seeds is
    not in the interval.

    Args:
        updates, examples: S and E.
        fit: a row of `SweepFit.fits`; what was not fitted makes the answer NaN.
        confidence: of the interval.
    """
    logs = np.log([fit["steps_min"], fit["examples_min"]])
    steps, both, batch = (fit[f"log_{name}_se"] ** 2 for name in ("steps_min", "examples_min", "critical_batch"))
    if not np.isfinite(logs).all():
        return UNKNOWN
    value = float(_product(np.log([updates, examples]) - logs))
    if not math.isfinite(steps + both + batch):
        return Estimate(value, math.nan, math.nan)
    shared = (steps + both - batch) / 2  # log B_crit is the difference of the two
    draws = np.random.default_rng(0).multivariate_normal(logs, [[steps, shared], [shared, both]], DRAWS, "ignore")
    return percentiles(value, _product(np.log([updates, examples]) - draws), confidence)


def _product(log_excess: FloatArray) -> FloatArray:
    return np.maximum(np.expm1(log_excess), 0).prod(axis=-1)


def adaptive_table(
    noise: NoiseRows, runs: Sequence[Run], reached: pd.DataFrame, rates: pd.DataFrame, fits: pd.DataFrame
) -> pd.DataFrame:
    """One row for each goal and setting of an adaptive batch that reached it: ADAPTIVE_COLUMNS.

    As on a front the learning rate counts that reached the goal in the fewest updates.

    Args:
        noise: of the table of all runs.
        runs: all runs.
        reached: of the adaptive runs.
        rates: their `rate_table`.
        fits: of the fixed batch sizes, `SweepFit.fits`.

    Returns:
        task, goal, learning_rate (at the start), setting (how it was steered), seeds, batch_size (mean over updates),
        updates and examples (geometric means over seeds), gamma_observed and gamma_predicted (from the noise scale of
        these very runs) with their intervals, NaN where not known.
    """
    by_goal, of_setting = fits.set_index(["task", "goal"]), ["task", "goal", "setting"]
    found: list[dict[str, object]] = []
    ordered = rates[rates["status"] == "reached"].sort_values([*of_setting, "updates"])
    for cell in ordered.drop_duplicates(of_setting).to_dict("records"):
        fit = by_goal.loc[(cell["task"], cell["goal"])]
        same = (reached[[CELL[0], *CELL[3:]]] == [cell[CELL[0]], *(cell[name] for name in CELL[3:])]).all(axis=1)
        confidence = float(fit["confidence"])
        course = course_to_goal(noise, runs, reached[same], float(cell["goal"]))
        observed = observed_gamma(cell["updates"], cell["examples"], fit, confidence=confidence)
        predicted = predicted_gamma(course, confidence=confidence)
        row: dict[str, object] = {str(name): value for name, value in cell.items() if name in ADAPTIVE_COLUMNS}
        uses = max(run.uses for run in runs if run.task == cell["task"])
        row |= {"batch_size": uses * cell["examples"] / cell["updates"]}
        row |= dict(zip(GAMMA_OBSERVED, observed, strict=True)) | dict(zip(GAMMA_PREDICTED, predicted, strict=True))
        found.append(row)
    return pd.DataFrame(found, columns=pd.Index(ADAPTIVE_COLUMNS))
