"""How far predictions of B_crit from single runs were off, over tasks whose B_crit was swept; and what follows from it.

For a task with a prediction P, from the noise scale of one run, and a swept B_crit, y = log(B_crit / P). Over tasks of
a kind y has a mean, by which predictions are corrected, and a spread, by which their intervals are widened: those of a
further task follow Student's t, mean + s sqrt(1 + 1/n) t with n - 1 degrees of freedom. Where the interval that the
other tasks give to each task in turn does not hold its y, the spread is made wider until it does for as many tasks as
the confidence asks for (jackknife conformal prediction; Barber et al. 2021 show that such intervals cover whatever the
distribution, for tasks that could be exchanged for one another). What is said about a task never rests on that task.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rl_scaling.analysis.agreement import WIDEST
from rl_scaling.analysis.noise_path import FloatArray, NoisePath, predicted
from rl_scaling.estimates import Estimate

MODEL = "nqm"  # a model of training is no training: what is trained learns nothing from it
FEWEST_TASKS = 5
SHIPPED = "predicted_tasks.json"
WITHIN = 2.0
TRAINED = "all that is trained"


@dataclass(frozen=True)
class PredictedTask:
    """One task whose B_crit was swept, and the prediction of one of its runs.

    Attributes:
        task, domain, algorithm, unit: see `Identity`.
        goal: the hardest for which both are known.
        run_id, source: of the run, and where its noise scale comes from: "training" or "kept weights".
        swept, predicted: B_crit by the sweep and by the run, in units; predicted is not corrected.
        path: what the prediction follows from; None where it was read from a file.
    """

    task: str
    domain: str
    algorithm: str
    unit: str
    goal: float
    run_id: str
    source: str
    swept: Estimate
    predicted: Estimate
    path: NoisePath | None = None

    @property
    def log_error(self) -> float:
        """log(B_crit / prediction); NaN where the prediction is open."""
        return math.log(self.swept.value / self.predicted.value) if self.predicted.resolved else math.nan

    def to_plain(self) -> dict[str, Any]:
        """Without the path; numbers to six digits."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        for name in ("swept", "predicted"):
            plain |= {key: _rounded(value) for key, value in getattr(self, name).columns(name).items()}
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> PredictedTask:
        """The inverse of `to_plain`; what is null there is NaN or, above, infinite."""
        own: dict[str, Any] = {name: plain[name] for name in _PLAIN}
        return cls(**own, swept=_estimate(plain, "swept"), predicted=_estimate(plain, "predicted"))


_PLAIN = ("task", "domain", "algorithm", "unit", "goal", "run_id", "source")


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _estimate(plain: Mapping[str, Any], name: str) -> Estimate:
    value, low, high = (plain[key] for key in (name, f"{name}_low", f"{name}_high"))
    return Estimate(
        math.nan if value is None else value, math.nan if low is None else low, math.inf if high is None else high
    )


@dataclass(frozen=True)
class PredictionError:
    """The distribution of log(B_crit / prediction) for a further task.

    Attributes:
        tasks: that it rests on.
        kind: of these tasks, in words.
        mean: of y; predictions are multiplied by exp(mean).
        scale, freedom: of Student's t about the mean.
        confidence: for which the scale was widened until it covers.

    >>> error = error_of([0.1, -0.2, 0.3, 0.0, 0.2])
    >>> round(error.bias, 2), round(error.factor, 1)
    (1.08, 1.8)
    """

    tasks: int
    kind: str
    mean: float
    scale: float
    freedom: float
    confidence: float

    @property
    def bias(self) -> float:
        """Geometric mean of B_crit / prediction."""
        return math.exp(self.mean)

    @property
    def factor(self) -> float:
        """The interval of a further task spans this factor to both sides of its corrected prediction."""
        return math.exp(self.scale * float(stats.t.ppf(0.5 + self.confidence / 2, self.freedom)))

    def draws(self, rng: np.random.Generator, count: int) -> FloatArray:
        """(count,) factors B_crit / prediction."""
        return np.exp(self.mean + self.scale * rng.standard_t(self.freedom, count))


def error_of(log_errors: Sequence[float], kind: str = "tasks", *, confidence: float = 0.95) -> PredictionError:
    """The distribution for a further task, from log(B_crit / prediction) of three tasks or more."""
    y = np.asarray(log_errors, dtype=np.float64)
    mean, scale = _mean_and_scale(y)
    widen = 1.0
    if len(y) > 3:
        others = [_mean_and_scale(np.delete(y, place)) for place in range(len(y))]
        limits = [s * stats.t.ppf(0.5 + confidence / 2, len(y) - 2) for _, s in others]
        misses = [abs(own - m) / limit for own, (m, _), limit in zip(y, others, limits, strict=True)]
        rank = min(len(y), math.ceil(confidence * (len(y) + 1)))
        widen = max(1.0, sorted(misses)[rank - 1])
    return PredictionError(len(y), kind, mean, widen * scale, len(y) - 1.0, confidence)


def _mean_and_scale(y: FloatArray) -> tuple[float, float]:
    return float(y.mean()), float(y.std(ddof=1) * math.sqrt(1 + 1 / len(y)))


def error_for(
    known: Sequence[PredictedTask], *, task: str, domain: str, algorithm: str, confidence: float = 0.95
) -> PredictionError | None:
    """The distribution for one task, from the tasks that are most like it and not from itself.

    Those of the same algorithm where there are five or more, else of the same domain, else all that are trained (for
    the noisy quadratic model: all); None where these are fewer than five too. The same problem learned with other
    settings of an algorithm counts as another task.
    """
    others = [one for one in known if one.task != task and math.isfinite(one.log_error)]
    of_domain = [one for one in others if one.domain == domain]
    kinds = {
        f"tasks of {algorithm}": [one for one in of_domain if one.algorithm == algorithm],
        f"tasks of {_WORDS.get(domain, domain)}": of_domain,
        "tasks of all domains": [one for one in others if domain == MODEL or one.domain != MODEL],
    }
    for kind, alike in kinds.items():
        if len(alike) >= FEWEST_TASKS:
            return error_of([one.log_error for one in alike], kind, confidence=confidence)
    return None


_WORDS = {"rl": "reinforcement learning", "supervised": "supervised learning", MODEL: "noisy quadratic model"}


@cache
def shipped() -> dict[str, Any]:
    """What `rl-scaling advise --table results --json` prints of the tasks under results/: "tasks" and "summary"."""
    return json.loads(resources.files("rl_scaling.analysis").joinpath(SHIPPED).read_text(encoding="utf-8"))


def shipped_tasks() -> list[PredictedTask]:
    """The tasks under results/."""
    return [PredictedTask.from_plain(row) for row in shipped()["tasks"]]


def leave_one_out(known: Sequence[PredictedTask], *, confidence: float = 0.95) -> pd.DataFrame:
    """What the other tasks make of each task's prediction.

    Returns:
        One row for each task of `known`: task, domain, algorithm, unit, goal, run_id, source, others (how many tasks
        the correction rests on; 0: none, the prediction stays as it is) and kind; swept and predicted with their
        intervals; corrected with its interval, which has the scatter over the others in it; factor (swept over
        corrected; NaN where the prediction is open), within (a factor of 2) and held (the interval holds the swept
        value).
    """
    rows = []
    for one in known:
        error = error_for(known, task=one.task, domain=one.domain, algorithm=one.algorithm, confidence=confidence)
        corrected = corrected_prediction(one, error, confidence=confidence)
        factor = one.swept.value / corrected.value if corrected.resolved else math.nan
        rows.append(
            {
                **{name: getattr(one, name) for name in _PLAIN},
                "others": error.tasks if error else 0,
                "kind": error.kind if error else "",
                **one.swept.columns("swept"),
                **one.predicted.columns("predicted"),
                **corrected.columns("corrected"),
                "factor": factor,
                "within": math.isfinite(factor) and 1 / WITHIN <= factor <= WITHIN,
                "held": corrected.low <= one.swept.value <= corrected.high,
            }
        )
    return pd.DataFrame(rows)


def corrected_prediction(
    one: PredictedTask, error: PredictionError | None, *, confidence: float, seed: int = 0
) -> Estimate:
    """A prediction with the bias of others taken out and their scatter added; with its path, both errors are drawn."""
    if error is None or not one.predicted.resolved:
        return one.predicted
    if one.path is not None:
        return predicted(one.path, lambda found: found.critical_batch, confidence=confidence, seed=seed, error=error)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    own = [math.log(end / one.predicted.value) / z for end in (one.predicted.low, one.predicted.high)]
    value = one.predicted.value * error.bias
    wide = math.log(error.factor)
    return Estimate(
        value, value * math.exp(-math.hypot(wide, z * own[0])), value * math.exp(math.hypot(wide, z * own[1]))
    )


def is_swept(swept: Estimate) -> bool:
    """Whether a swept B_crit is known to a factor of 100 at least, as `agreement.pairs_of` asks."""
    return swept.resolved and swept.low > 0 and swept.high <= WIDEST * swept.low


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Counts over the rows of `leave_one_out`, of each domain and of all that are trained.

    Returns:
        By the name of a group of tasks: tasks, predicted (how many have a prediction), bias (geometric mean of
        B_crit / prediction, with a 95 % interval by Student's t), typical_factor (of an uncorrected prediction: exp of
        the root mean square of the logarithm), within_before, within (a factor of 2, before and after the correction
        by the other tasks), held_before and held (swept values inside the interval).
    """
    groups = {_WORDS.get(str(domain), str(domain)): part for domain, part in table.groupby("domain", sort=False)}
    groups = {TRAINED: table[table["domain"] != MODEL], **groups}
    return {name: _summary_of(part) for name, part in groups.items() if len(part)}


def _summary_of(part: pd.DataFrame) -> dict[str, Any]:
    known = part[np.isfinite(part["predicted"].astype(float))]
    y = np.log(known["swept"].to_numpy(float) / known["predicted"].to_numpy(float))
    held_before = (part["predicted_low"] <= part["swept"]) & (part["swept"] <= part["predicted_high"])
    mean = float(y.mean()) if len(y) else math.nan
    half = float(stats.t.ppf(0.975, len(y) - 1) * stats.sem(y)) if len(y) > 1 else math.nan
    return {
        "tasks": len(part),
        "predicted": len(known),
        **Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half)).columns("bias"),
        "typical_factor": math.exp(math.sqrt(float((y**2).mean()))) if len(y) else math.nan,
        "within_before": int((np.abs(y) <= math.log(WITHIN)).sum()),
        "within": int(part["within"].sum()),
        "held_before": int(held_before.sum()),
        "held": int(part["held"].sum()),
    }
