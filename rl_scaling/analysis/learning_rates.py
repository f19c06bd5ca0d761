"""Learning rates: the best against the batch size (McCandlish et al. 2018, A.3), by goal and for a fixed budget.

The best rate is linear in the batch size at first, then flat. With a budget (Smith, Elsen and De 2020) every batch size
is trained for the same epochs, or the same steps, or for as long as it takes; the rate that is best on the data trained
on and the one that is best on other data are found apart. Where gradient noise dominates, the best rate grows in
proportion to the batch and momentum buys nothing beyond its effective rate, rate / (1 - momentum); where curvature
dominates it stays, and momentum is ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from rl_scaling.estimates import Estimate, columns_of
from rl_scaling.records import Direction

FEWEST_SIZES = 3
_GRID = 2001
_CURVE_POINTS = 40
# Best rates lie on a grid a factor 2 apart or so, which scatters them by about a fifth at the least.
_LEAST_VARIANCE = math.log(2) ** 2 / 12


@dataclass(frozen=True)
class RateCurve:
    """rate(B) = limit / (1 + turn / B)^power  (A.3).

    Attributes:
        limit: the learning rate of very large batches.
        turn: the batch size around which the best rate stops growing, in the task's unit, with its profile-likelihood
            interval; 0 where it lies below all batch sizes (the rate stays), infinite where it lies above them.
        power: 1 for SGD and momentum, between 0.5 and 1 for Adam and RMSProp; given, not fitted.
        scatter: standard deviation of log (measured / curve), of at least what a grid of rates allows.
    """

    limit: float
    turn: Estimate
    power: float
    scatter: float
    _drawn_turn: float

    def __call__(self, batch_sizes: ArrayLike) -> NDArray[np.float64]:
        """The learning rate at each batch size."""
        return self.limit / (1 + self._drawn_turn / np.asarray(batch_sizes, dtype=np.float64)) ** self.power


def rate_curve(
    batch_sizes: ArrayLike, rates: ArrayLike, power: float = 1.0, *, confidence: float = 0.95
) -> RateCurve | None:
    """Fits A.3 to the best learning rates of several batch sizes, in logs: the profile over the turn, on a fine grid.

    Args:
        batch_sizes: (n,) in the task's unit.
        rates: (n,) the best learning rate at each, positive.

    Returns:
        The curve; None for fewer than three different batch sizes.

    Raises:
        ValueError: numbers that are not positive and finite.

    >>> sizes = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    >>> curve = rate_curve(sizes, 0.1 / (1 + 32 / sizes))
    >>> round(curve.turn.value), round(curve.limit, 3)
    (32, 0.1)
    """
    sizes, found = (np.asarray(x, dtype=np.float64) for x in (batch_sizes, rates))
    if not all(np.isfinite(x).all() and (x > 0).all() for x in (sizes, found)):
        raise ValueError("batch sizes and learning rates must be positive and finite")
    if len(np.unique(sizes)) < FEWEST_SIZES:
        return None
    first, last = float(sizes.min()), float(sizes.max())
    turns = np.geomspace(first / 100, last * 100, _GRID)  # beyond, the turn makes no difference to the shape
    log_limits = np.log(found) + power * np.log1p(turns[:, None] / sizes)
    squares = ((log_limits - log_limits.mean(1, keepdims=True)) ** 2).sum(1)
    variance = max(squares.min() / max(len(sizes) - 2, 1), _LEAST_VARIANCE)
    inside = turns[squares <= squares.min() + variance * chi2.ppf(confidence, 1)]
    best = int(squares.argmin())

    def seen(turn: float) -> float:
        return 0.0 if turn < first else math.inf if turn > last else float(turn)

    return RateCurve(
        limit=math.exp(float(log_limits[best].mean())),
        turn=Estimate(seen(turns[best]), seen(inside.min()), seen(inside.max())),
        power=power,
        scatter=math.sqrt(variance),
        _drawn_turn=float(turns[best]),
    )


def curve_of_hardest_goal(
    front: pd.DataFrame, power: float, direction: Direction
) -> tuple[float, pd.DataFrame, RateCurve] | None:
    """A.3 fitted to the best rates of the hardest goal that three batch sizes reached.

    Args:
        front: the task's rows of `SweepFit.fronts`.

    Returns:
        The goal, batch_size and learning_rate along the curve, and the curve; None where no goal has three.
    """
    sizes = front.groupby("goal")["batch_size"].nunique()
    enough = sizes.index[sizes >= FEWEST_SIZES]
    if not len(enough):
        return None
    goal = float(enough.max() if direction == "max" else enough.min())
    chosen = front[front["goal"] == goal]
    curve = rate_curve(chosen["batch_size"], chosen["learning_rate"], power)
    if curve is None:
        return None
    at = np.geomspace(float(chosen["batch_size"].min()), float(chosen["batch_size"].max()), _CURVE_POINTS)
    return goal, pd.DataFrame({"batch_size": at, "learning_rate": curve(at)}), curve


def rates_to_goals(learning_rates: pd.DataFrame) -> tuple[float, pd.DataFrame] | None:
    """Updates to every goal by learning rate, the best setting of each.

    Args:
        learning_rates: the task's rows of `SweepFit.learning_rates`.

    Returns:
        The hardest goal among those that the largest number of batch sizes reached, and goal, batch_size,
        learning_rate, setting, updates; None where no goal was reached.
    """
    reached = learning_rates.dropna(subset=["updates"])
    if reached.empty:
        return None
    by_goal = reached.groupby("goal").agg(sizes=("batch_size", "nunique"), updates=("updates", "min"))
    columns = ["goal", "batch_size", "learning_rate", "setting", "updates"]
    table = reached.sort_values("updates").drop_duplicates(columns[:3])[columns].sort_values(columns)
    return float(by_goal.sort_values(["sizes", "updates"]).index[-1]), table


def final_values_by_rate(runs: pd.DataFrame, direction: Direction) -> pd.DataFrame:
    """What runs end with by batch size and learning rate, the best setting of each.

    Args:
        runs: one row per run of one task, `Series.runs`.

    Returns:
        batch_size, learning_rate, setting, score (mean over seeds), seeds, examples.
    """
    rate = ["batch_size", "learning_rate"]
    grouped = runs.dropna(subset=["final_score"]).groupby([*rate, "setting"], as_index=False)
    means = grouped.agg(score=("final_score", "mean"), seeds=("final_score", "size"), examples=("examples", "mean"))
    best_first = means.sort_values("score", ascending=direction == "min")
    return best_first.drop_duplicates(rate).sort_values(rate)


# Final quantities and whether less of them is better.
QUANTITIES: dict[str, bool] = {"training_loss": True, "validation_loss": True, "validation_accuracy": False}
UNLIMITED = "unlimited"
_UNITS = ("epochs", "steps")

_BUDGET_CELL = ["task", "subject", "optimizer", "variant", "budget", "budget_amount", "budget_unit", "batch_size"]
_RATE_KEY = [*_BUDGET_CELL, "learning_rate", "effective_rate"]
BEST_COLUMNS = (*_RATE_KEY, "quantity", "value", "standard_error", "seeds", "rate_low", "rate_high", "at_edge")
_TURN_KEY = ("subject", "optimizer", "variant", "budget", "quantity")
TURN_COLUMNS = (*_TURN_KEY, *columns_of("turn"), "scatter", "batch_sizes")


def final_values(runs: pd.DataFrame) -> pd.DataFrame:
    """Where every run with a budget ended.

    Args:
        runs: rows in the form of `rl_scaling.store.load_runs`; those without a budget are ignored.

    Returns:
        One row per run that is over (runs of one seed share a row with their mean): task, subject (its problem),
        optimizer (its algorithm), budget (for people), variant, budget_amount and budget_unit, batch_size,
        learning_rate, effective_rate (over 1 - momentum, where that is a heavy ball's or Nesterov's), seed, and
        `QUANTITIES` at its last row; NaN where it diverged.
    """
    budgeted = runs["budget_unit"].isin(_UNITS)
    if not budgeted.any():
        return pd.DataFrame(columns=pd.Index([*_RATE_KEY, "seed", *QUANTITIES]))
    ended = runs["status"].isin(["done", "diverged"])
    by = [name for name in ("store", "run_id") if name in runs.columns]
    last = runs[budgeted & ended].sort_values("updates", kind="stable").groupby(by, as_index=False).tail(1)
    heavy = last["optimizer.name"].isin(["momentum", "nesterov"])
    momentum = last["optimizer.momentum"].astype(float).where(heavy, 0.0)
    found = last.assign(
        subject=last["problem"],
        optimizer=last["algorithm"],
        budget=last["budget_amount"].map("{:.10g} ".format) + last["budget_unit"],
        effective_rate=last["learning_rate"] / (1 - momentum),
    )
    for name in QUANTITIES:
        found[name] = found[name].astype(float).where(found["status"] == "done")
    # A run that only measured something else is no further seed; the mean of two that agree is NaN if one diverged.
    grouped = found.groupby([*_RATE_KEY, "seed"], as_index=False, sort=False)
    return grouped.agg({name: lambda values: values.mean(skipna=False) for name in QUANTITIES})


def best_rates_of_budgets(runs: pd.DataFrame) -> pd.DataFrame:
    """The best learning rate of every optimiser, budget, batch size and quantity.

    A rate is judged by the mean of its seeds, and counts only if none of them diverged.

    Returns:
        `BEST_COLUMNS`: the best rate with the mean and its standard error over seeds (NaN for one seed), and rate_low
        and rate_high, the ends of the rates whose mean is within a standard error of the best one's. at_edge: "low" or
        "high" where the best rate is an end of those tried, so that a better one may lie beyond; "" where it is not.
    """
    values = final_values(runs)
    if values.empty:
        return pd.DataFrame(columns=pd.Index(BEST_COLUMNS))
    long = values.melt(id_vars=[*_RATE_KEY, "seed"], value_vars=list(QUANTITIES), var_name="quantity")
    grouped = long.groupby([*_RATE_KEY, "quantity"], as_index=False)["value"]
    rates = grouped.agg(value="mean", spread="std", seeds="size", known="count")
    rates["standard_error"] = rates["spread"] / np.sqrt(rates["seeds"])
    rates["value"] = rates["value"].where(rates["known"] == rates["seeds"])
    cells = pd.DataFrame(rates).assign(cost=_cost).groupby([*_BUDGET_CELL, "quantity"], sort=True)
    best = [_best_of(cell) for _, cell in cells if cell["cost"].notna().any()]
    return pd.DataFrame(best, columns=pd.Index(BEST_COLUMNS))


def _cost(table: pd.DataFrame) -> pd.Series:
    """The column value, or its negative where more is better."""
    return table["value"].where(table["quantity"].map(QUANTITIES).astype(bool), -table["value"])


def _best_of(cell: pd.DataFrame) -> dict[str, object]:
    ordered = cell.sort_values(["cost", "learning_rate"])  # NaN last
    best = {str(name): value for name, value in ordered.iloc[0].items()}
    error = np.nan_to_num(ordered["standard_error"].iloc[0])
    near = ordered.loc[ordered["cost"] <= ordered["cost"].iloc[0] + error, "learning_rate"]
    ends = {cell["learning_rate"].min(): "low", cell["learning_rate"].max(): "high"}
    edge = ends.get(best["learning_rate"], "") if len(cell) > 1 else ""
    return best | {"rate_low": near.min(), "rate_high": near.max(), "at_edge": edge}


def with_bars(best: pd.DataFrame) -> pd.DataFrame:
    """`best_rates_of_budgets` with what bars reach over.

    Returns:
        Further columns: effective_low and effective_high, as rate_low and rate_high but effective; value_low and
        value_high, a standard error about the value, but never below a tenth of it.
    """
    factor, error = best["effective_rate"] / best["learning_rate"], best["standard_error"].fillna(0.0)
    return best.assign(
        effective_low=best["rate_low"] * factor,
        effective_high=best["rate_high"] * factor,
        value_low=(best["value"] - error).clip(lower=best["value"] / 10),
        value_high=best["value"] + error,
    )


def of_epochs(best: pd.DataFrame) -> pd.DataFrame:
    """The rows of budgets in epochs, with their number as `epochs`."""
    rows = best[best["budget_unit"] == "epochs"]
    return rows.assign(epochs=rows["budget_amount"])


def unlimited(best: pd.DataFrame) -> pd.DataFrame:
    """What training for as long as it takes gives: the best of all budgets in epochs, of `best_rates_of_budgets`.

    Returns:
        The same columns, with budget `UNLIMITED`, `epochs` (the number that was best) and `longest` (it is the largest
        of those tried: still more might be better). Batch sizes with one budget in epochs are left out.
    """
    epochs = of_epochs(best)
    by = ["subject", "optimizer", "variant", "batch_size", "quantity"]
    ordered = epochs.assign(cost=_cost(epochs)).sort_values([*by, "cost", "epochs"])
    most, count = (ordered.groupby(by)["epochs"].transform(what) for what in ("max", "size"))
    ordered = ordered.assign(longest=ordered["epochs"] == most).loc[count > 1]
    found = ordered.drop_duplicates(by).assign(budget=UNLIMITED)
    return found[[*BEST_COLUMNS, "epochs", "longest"]].reset_index(drop=True)


def turns(best: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """The batch size around which the best learning rate stops growing with the batch: B* of A.3 with alpha = 1.

    rate(B) = rate* / (1 + B*/B) is fitted in logarithms to the best effective rates of three batch sizes or more.

    Returns:
        `TURN_COLUMNS`: turn in examples with its profile-likelihood interval. An end beyond the batch sizes that were
        tried is 0 or infinite: the rate stays, or grows, over all of them. scatter: the residuals' standard deviation
        in natural logarithms, of at least what a grid of rates allows.
    """
    rows = []
    for key, cell in best.groupby(list(_TURN_KEY), sort=True):
        fit = rate_curve(cell["batch_size"], cell["effective_rate"], confidence=confidence)
        if fit is not None:
            rows.append((*key, *fit.turn.columns("turn").values(), fit.scatter, len(cell)))
    return pd.DataFrame(rows, columns=pd.Index(TURN_COLUMNS))


def against_sgd(best: pd.DataFrame) -> pd.DataFrame:
    """Every other optimiser beside plain SGD at the same subject, budget, batch size and quantity.

    Returns:
        optimizer, subject, budget, batch_size, quantity, better (by how much its best value is better than SGD's, in
        the quantity's unit), better_error (standard error from the seeds of both), rate_ratio (of effective rates).
    """
    by = ["subject", "variant", "budget", "batch_size", "quantity"]
    plain, others = best[best["optimizer"] == "sgd"], best[best["optimizer"] != "sgd"]
    both = others.merge(plain, on=by, suffixes=("", "_sgd"))
    compared = both.assign(
        better=_cost(both.assign(value=both["value_sgd"])) - _cost(both),
        better_error=np.hypot(both["standard_error"], both["standard_error_sgd"]),
        rate_ratio=both["effective_rate"] / both["effective_rate_sgd"],
    )
    return compared[["optimizer", *by, "better", "better_error", "rate_ratio"]]
