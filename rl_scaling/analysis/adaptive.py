"""Batch sizes that followed the noise scale, beside the front of fixed ones (McCandlish et al. 2018, appendix D).

What an adaptive batch can gain is gamma of D.5, predicted from the noise scale over training
(`rl_scaling.analysis.noise_path`); what it did gain is (S/S_min - 1)(E/E_min - 1) with S and E of the adaptive run and
S_min and E_min fitted to the fixed ones. A fixed batch has 1, and less is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from rl_scaling.analysis.fronts import CELL, Run
from rl_scaling.analysis.noise_path import DRAWS, FloatArray, NoisePath, path_to_goal, percentiles, predicted_gamma
from rl_scaling.analysis.noise_scale import NoiseRows
from rl_scaling.estimates import UNKNOWN, Estimate, columns_of

ADAPTIVE_COLUMNS = [
    *(*CELL[:2], *CELL[3:], "seeds", "batch_size", "updates", "examples"),
    *(*columns_of("gamma_observed"), *columns_of("gamma_predicted")),
]


def observed_gamma(updates: float, examples: float, fit: pd.Series, *, confidence: float = 0.95) -> Estimate:
    """(S/S_min - 1)(E/E_min - 1) of a run, with the interval that the errors of S_min and E_min give it.

    Where the run needed fewer updates than S_min, or fewer examples than E_min, it is 0. Its own scatter over seeds is
    not in the interval.

    Args:
        updates, examples: S and E.
        fit: a row of `SweepFit.fits`; what was not fitted makes the answer NaN.
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


def gamma_of_runs(path: NoisePath, runs: Sequence[Run], *, confidence: float) -> Estimate:
    """`predicted_gamma` of runs that used every example once.

    D.5 is about updates from fresh examples. Where they are used again the noise scale of their first use is not that
    of most updates, and nothing is predicted.
    """
    return predicted_gamma(path, confidence=confidence) if all(run.uses == 1 for run in runs) else UNKNOWN


def adaptive_table(
    noise: NoiseRows, runs: Sequence[Run], reached: pd.DataFrame, rates: pd.DataFrame, fits: pd.DataFrame
) -> pd.DataFrame:
    """One row for each goal and setting of an adaptive batch that reached it: ADAPTIVE_COLUMNS.

    As on a front the learning rate counts that reached the goal in the fewest updates.

    Args:
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
        path = path_to_goal(noise, runs, reached[same], float(cell["goal"]))
        observed = observed_gamma(cell["updates"], cell["examples"], fit, confidence=confidence)
        predicted = gamma_of_runs(path, [run for run in runs if run.task == cell["task"]], confidence=confidence)
        row: dict[str, object] = {str(name): value for name, value in cell.items() if name in ADAPTIVE_COLUMNS}
        uses = max(run.uses for run in runs if run.task == cell["task"])
        row |= {"batch_size": uses * cell["examples"] / cell["updates"]}
        row |= observed.columns("gamma_observed") | predicted.columns("gamma_predicted")
        found.append(row)
    return pd.DataFrame(found, columns=pd.Index(ADAPTIVE_COLUMNS))
