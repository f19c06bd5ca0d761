"""From one run to the cost of every other batch size: updates, examples and hours, each with an interval.

The noise scale over the run gives S_min and E_min of what it learned (`rl_scaling.analysis.noise_path`), and with them
S(B) = S_min + E_min / B and E(B) = E_min + S_min B (McCandlish et al. 2018, 2.11); a + b B seconds per update makes
hours of it,

    T(B) = (S_min + E_min / B)(a + b B),    least at B = sqrt(B_crit a / b).

Three batch sizes get a name: "cheapest" needs 20 % more examples than the fewest possible, B_crit / 5; "balanced" twice
the fewest updates and twice the fewest examples, B_crit; "fastest" takes the least time on the machine. The intervals
are those of the measurements: of the noise scale and of the times. That B_simple is not B_noise, and that the learning
rate must be tuned at each batch size, is not in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from rl_scaling.analysis.fronts import is_adaptive
from rl_scaling.analysis.noise_path import DRAWS, FloatArray, Integrals, NoisePath, ScaleError, percentiles
from rl_scaling.estimates import UNKNOWN, Estimate

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


Name = Literal["cheapest", "balanced", "fastest"]
CHEAPEST = 1 / 5


@dataclass(frozen=True)
class Cost:
    """What one batch size takes.

    Attributes:
        batch_size: in examples.
        updates, examples, hours: with their intervals; hours are NaN where no times are known.
    """

    batch_size: float
    updates: Estimate
    examples: Estimate
    hours: Estimate


@dataclass(frozen=True)
class Choice:
    """A batch size with a name.

    Attributes:
        name: see the module.
        batch_size: with its interval, in examples.
        cost: of that batch size.
        note: what limits it, if anything.
    """

    name: Name
    batch_size: Estimate
    cost: Cost
    note: str = ""


class CostModel:
    """All that follows from the noise scale along one run and from the times of updates.

    Args:
        path: of the run, to whatever it is that the costs are for.
        throughput: None where no times are known: then there are no hours and no fastest batch size.
        smallest: the smallest batch size to name.
        largest: the largest; by default four times the largest that was measured.
        error: of the noise scale as a predictor, beside that of measuring it: its bias is taken out, its spread added.

    Raises:
        ValueError: the noise scale is not known along all of the run.
    """

    def __init__(
        self,
        path: NoisePath,
        throughput: Throughput | None = None,
        *,
        smallest: float = 1.0,
        largest: float | None = None,
        confidence: float = 0.95,
        seed: int = 0,
        error: ScaleError | None = None,
    ):
        if not path.known:
            raise ValueError("the noise scale was not measured often enough along the run: give a longer run")
        self.path, self.throughput, self.confidence = path, throughput, confidence
        self.smallest, self.error = smallest, error
        measured = throughput.batch[-1] if throughput else float(path.batch.max())
        self.largest = max(largest or 4 * float(measured), smallest)
        self._value = path.corrected(error)
        self._draws = path.drawn(np.random.default_rng(seed), DRAWS, error=error)

    @property
    def steps_min(self) -> Estimate:
        """S_min."""
        return self._estimate(self._value.steps_min, self._draws.steps_min)

    @property
    def examples_min(self) -> Estimate:
        """E_min."""
        return self._estimate(self._value.examples_min, self._draws.examples_min)

    @property
    def critical_batch(self) -> Estimate:
        """B_crit = E_min / S_min."""
        return self._estimate(self._value.critical_batch, self._draws.critical_batch)

    def cost(self, batch_size: float) -> Cost:
        """What a batch size takes."""
        value, draws = (steps(part, batch_size) for part in (self._value, self._draws))
        hours = UNKNOWN
        if self.throughput is not None:
            each = float(self.throughput.seconds_per_update(batch_size))
            hours = self._estimate(value * each / 3600, draws * self.throughput.drawn(batch_size) / 3600)
        return Cost(
            batch_size,
            self._estimate(value, draws),
            self._estimate(value * batch_size, draws * batch_size),
            hours,
        )

    def choices(self) -> list[Choice]:
        """The cheapest, the balanced and, where times are known, the fastest batch size."""
        found = [
            self._choice("cheapest", CHEAPEST * self._value.critical_batch, CHEAPEST * self._draws.critical_batch),
            self._choice("balanced", self._value.critical_batch, self._draws.critical_batch),
        ]
        line = self.throughput
        if line is not None:
            value = fastest(self._value.critical_batch, line.overhead, line.per_example)
            draws = fastest(self._draws.critical_batch, line.draws[:, 0], line.draws[:, 1])
            found.append(self._choice("fastest", value, draws))
        return found

    def _choice(self, name: Name, value: FloatArray, draws: FloatArray) -> Choice:
        low, high = self.smallest, self.largest
        batch = float(np.clip(value, low, high))
        note = ""
        if value > high:
            note = "more than could be named from what was measured"
        elif value < low:
            note = "the smallest batch there can be"
        return Choice(name, self._estimate(batch, np.clip(draws, low, high)), self.cost(batch), note)

    def _estimate(self, value: FloatArray | float, draws: FloatArray) -> Estimate:
        return percentiles(float(value), draws, self.confidence)


def steps(integrals: Integrals, batch_size: float) -> FloatArray:
    """S(B) = S_min + E_min / B."""
    return integrals.steps_min + integrals.examples_min / batch_size


def fastest(critical_batch: FloatArray, overhead: FloatArray | float, per_example: FloatArray | float) -> FloatArray:
    """The B with the least (1 + B_crit / B)(a + b B); infinite where further examples cost no time.

    >>> round(float(fastest(np.array(400.0), 0.09, 0.01)))
    60
    """
    overhead, per_example = np.asarray(overhead), np.asarray(per_example)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.sqrt(critical_batch * (overhead / per_example))
    # No overhead: the smallest batch wins, however large B_crit.
    return np.where(overhead == 0, 0.0, np.where(per_example == 0, np.inf, found))


def curve(model: CostModel, step: float = 1.0) -> list[Cost]:
    """What batch sizes of 2, 4, 8, ... times `step` take, up to four times B_crit or the largest that was measured."""
    turn = float(model.critical_batch.value)
    last = min(model.largest, max(4 * turn, model.largest / 4))
    sizes = [step * 2**k for k in range(1, 64) if step * 2**k <= max(last, 2 * step)]
    return [model.cost(size) for size in sizes if size >= model.smallest]
