"""The noise scale in stretches of training: on the way to a goal, or over a whole run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rl_scaling.analysis.course import Course, FloatArray
from rl_scaling.analysis.fronts import Run
from rl_scaling.analysis.noise_scale import NoiseRows

# The way is cut into the most stretches of which each shows a gradient; one with too few rows is joined to the next.
# What is unresolved must not be cut up: 1/N below zero counts as 0, so that many uncertain pieces would seem to show
# one.
STRETCHES = (8, 4, 2, 1)
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
    numbers = [int(number) for number in marks["run"].unique()]
    return _finest(noise, [runs[number] for number in numbers], paths)


def _finest(noise: NoiseRows, runs: list[Run], paths: list[FloatArray]) -> Course:
    """The most stretches that are resolved; one where there are none.

    Args:
        noise: of the table of all runs.
        runs: to be pooled.
        paths: for each run (m, 3) updates, examples and row at moments in which all runs are equally far.
    """
    course = None
    for stretches in STRETCHES:
        # From the start of training, where row -1 would be.
        edges = np.stack([_places(np.vstack([[0.0, 0.0, -1.0], path]), stretches) for path in paths])
        course = _joined(noise, runs, edges)
        if course.resolved:
            break
    assert course is not None
    return course


def _places(marks: FloatArray, stretches: int) -> FloatArray:
    """(stretches + 1, 3) updates, examples and row where stretches begin, evenly spaced over the marks (m, 3)."""
    at = np.linspace(0, len(marks) - 1, stretches + 1)
    return np.stack([np.interp(at, np.arange(len(marks)), column) for column in marks.T], axis=1)


def _joined(noise: NoiseRows, runs: list[Run], edges: FloatArray) -> Course:
    """Stretches with enough rows, from (runs, stretches + 1, 3) edges."""
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


def course_of_run(noise: NoiseRows, run: Run, updates: FloatArray) -> Course:
    """The noise scale over all of a run, in stretches of equally many rows.

    Args:
        noise: of the run's table.
        run: one run.
        updates: (rows of the table,) total updates at each row.
    """
    marks = np.stack([updates[run.rows], run.examples, np.arange(len(run.rows), dtype=np.float64)], axis=1)
    return _finest(noise, [run], [marks])
