"""Figures 3a, 4, 13 and 14 of Zhang et al. 2019: the fewest steps and the best learning rates against batch size."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from rl_scaling.analysis import fit_tradeoff
from rl_scaling.domains.nqm.tuning import as_table, steps_to_target
from rl_scaling.report.gallery import Check, Exhibit
from rl_scaling.validation.published.drawing import Axis, line_figure

BATCH_SIZES = 4.0 ** np.arange(1, 11)
POWERS = (0.0, 0.25, 0.5, 0.75)
TARGETS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
# N at which d / (2 N) is the target 0.01, and at which the Bayes risk is.
PUBLISHED_BOUND, BAYES_BOUND = 500_000, 495_016
_X = Axis("batch_size", "batch size (examples)")
_STEPS = Axis("steps", "steps to a risk of 0.01")


@functools.cache
def tuned(optimizer: str, power: float = 0.0, target: float = 0.01) -> pd.DataFrame:
    """Steps on the published grids, with columns power and line (the optimiser) beside them."""
    found = steps_to_target(BATCH_SIZES, optimizer=optimizer, power=power, target=target, method="published")
    return as_table(found).assign(
        power=power, line={"sgd": "plain SGD", "ema": "SGD with EMA"}.get(optimizer, optimizer)
    )


def bound() -> pd.DataFrame:
    """The published lower bound, d / (2 N) at N = batch size times steps."""
    steps = np.maximum(PUBLISHED_BOUND / BATCH_SIZES, 1.0)
    return pd.DataFrame({"batch_size": BATCH_SIZES, "steps": steps, "power": np.nan, "line": "lower bound"})


def slope(found: pd.DataFrame, column: str = "steps", first: int = 0) -> float:
    """Of log `column` over log batch size between the batch sizes number `first` and `first` + 1."""
    values, sizes = found[column].to_numpy(), found["batch_size"].to_numpy()
    return float(np.log(values[first + 1] / values[first]) / np.log(sizes[first + 1] / sizes[first]))


def _ratio(one: pd.DataFrame, other: pd.DataFrame, place: int) -> float:
    return float(one["steps"].iloc[place] / other["steps"].iloc[place])


def figure_3a() -> Exhibit:
    """Steps with momentum and with plain SGD at four powers of the preconditioner."""
    plain = {p: tuned("sgd", p) for p in POWERS}
    heavy = {p: tuned("momentum", p) for p in POWERS}
    sgd, momentum = plain[0.0], heavy[0.0]
    saturation = _ratio(sgd, sgd.shift(1), -1)
    turns = [_turn(table) for table in (sgd, momentum)]
    checks = [
        Check("perfect scaling at small batches", f"steps fall as B^{slope(sgd):.3f} from B = 4 to 16 (SGD, p = 0)",
              abs(slope(sgd) + 1) < 0.03),
        Check("saturation at large ones", f"the last factor 4 in batch size saves {1 - saturation:.1%} of the steps",
              saturation > 0.98),
        Check("momentum changes nothing at small batches",
              f"at B = 4 momentum takes {1 - _ratio(momentum, sgd, 0):.0%} fewer steps than SGD on the published grids",
              abs(_ratio(momentum, sgd, 0) - 1) < 0.03),
        Check("momentum helps at large ones", f"at B = 4^10 it takes {1 / _ratio(momentum, sgd, -1):.0f} times fewer",
              _ratio(momentum, sgd, -1) < 0.1),
        Check("momentum raises the critical batch size", f"from {turns[0]:,.0f} to {turns[1]:,.0f} (fit of 2.11)",
              turns[1] > 3 * turns[0]),
        Check("preconditioning helps everywhere",
              f"p = 0.75 takes {1 / _ratio(plain[0.75], sgd, 0):.2f} times fewer steps than p = 0 at B = 4 and "
              f"{1 / _ratio(plain[0.75], sgd, -1):.0f} times fewer at 4^10",
              _ratio(plain[0.75], sgd, 0) < 1 and _ratio(plain[0.75], sgd, -1) < 0.5),
        Check("the bound d/2N holds for all of them",
              f"the Bayes bound, {BAYES_BOUND:,} examples, is the true one and is "
              f"{1 - BAYES_BOUND / PUBLISHED_BOUND:.1%} lower; SGD at B = 4 needs "
              f"{4 * float(sgd['steps'].iloc[0]) / BAYES_BOUND:.1f} times as many",
              all((t["steps"] * t["batch_size"] > BAYES_BOUND).all() for t in (*plain.values(), *heavy.values()))),
    ]  # fmt: skip
    frame = pd.concat([*heavy.values(), *plain.values(), bound()], ignore_index=True)
    words = ("nqm-figure-3a", "Momentum helps at large batches, preconditioning at all",
             "Colours: power p of the preconditioner; published grids and counts. Solid: momentum; dashed: plain SGD; "
             "dotted: the lower bound d/2N.")  # fmt: skip
    figure = line_figure(words, _drawn(frame), _X, _STEPS, colour="power", colour_title="power p")
    return Exhibit("Figure 3a", figure, checks, frame)


def _drawn(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["batch_size", "steps", "power", "line"]]


def _turn(found: pd.DataFrame) -> float:
    return fit_tradeoff(found["steps"], found["steps"] * found["batch_size"]).critical_batch


def figure_4() -> Exhibit:
    """Steps with an exponential moving average of the iterates and without."""
    plain = {p: tuned("sgd", p) for p in POWERS}
    averaged = {p: tuned("ema", p) for p in POWERS}
    gains = {p: 1 / _ratio(averaged[p], plain[p], 0) for p in POWERS}
    large = _ratio(averaged[0.0], plain[0.0], -1)
    checks = [
        Check("averaging helps at small batches, most without preconditioning",
              "at B = 4 " + ", ".join(f"{gain:.1f}x (p = {p:g})" for p, gain in gains.items()) + " fewer steps",
              gains[0.0] > 3 and gains[0.0] == max(gains.values())),
        Check("and is redundant at large ones", f"at B = 4^10 it takes {large:.3f} times the steps of SGD",
              abs(large - 1) < 0.02),
        Check("it is never worse than SGD",
              f"on the published grids it is, by {large - 1:.1%} at 4^10: its grid of learning rates is coarser than "
              "SGD's (a coefficient of 0, which is SGD itself, is on it)", large <= 1),
        Check("it lowers the critical batch size",
              f"from {_turn(plain[0.0]):,.0f} to {_turn(averaged[0.0]):,.0f} (fit of 2.11)",
              _turn(averaged[0.0]) < _turn(plain[0.0])),
    ]  # fmt: skip
    frame = pd.concat([*averaged.values(), *plain.values(), bound()], ignore_index=True)
    words = ("nqm-figure-4", "Averaging the iterates helps where batches are small",
             "Colours: power p of the preconditioner; published grids and counts. Solid: averaged; dashed: plain SGD; "
             "dotted: the lower bound d/2N.")  # fmt: skip
    figure = line_figure(words, _drawn(frame), _X, _STEPS, colour="power", colour_title="power p")
    return Exhibit("Figure 4", figure, checks, frame)


def figure_13() -> Exhibit:
    """Steps of plain SGD to targets of different difficulty."""
    tables = {target: tuned("sgd", 0.0, target).assign(target=target, line="plain SGD") for target in TARGETS}
    turns = {target: _turn(table[table["steps"] > 1]) for target, table in tables.items()}
    hard = {target: turn for target, turn in turns.items() if np.isfinite(turn)}
    slopes = [slope(tables[target]) for target in TARGETS if target <= 0.03]
    checks = [
        Check("the shape is the same for all targets",
              f"steps fall as B^{max(slopes):.2f} to B^{min(slopes):.2f} from B = 4 to 16 for targets of 0.03 and "
              "below", max(slopes) < -0.9),
        Check("harder targets have larger critical batch sizes",
              ", ".join(f"{turn:,.0f} (risk {target:g})" for target, turn in hard.items()),
              list(hard.values()) == sorted(hard.values()) and len(hard) > 3),
    ]  # fmt: skip
    frame = pd.concat(tables.values(), ignore_index=True)[["batch_size", "steps", "target", "line"]]
    words = ("nqm-figure-13", "Harder targets take more steps and larger critical batch sizes",
             "Plain SGD, published grid; colours: the risk to reach.")  # fmt: skip
    axis = Axis("steps", "steps to the target")
    figure = line_figure(words, frame, _X, axis, colour="target", colour_title="target risk")
    return Exhibit("Figure 13", figure, checks, frame)


def figure_14() -> Exhibit:
    """The best learning rates of SGD, and the best effective ones of momentum."""
    plain = {p: tuned("sgd", p) for p in POWERS}
    heavy = {p: tuned("momentum", p) for p in POWERS}
    heavy = {p: t.assign(learning_rate=t["learning_rate"] / (1 - t["coefficient"])) for p, t in heavy.items()}
    rise = np.mean([slope(plain[0.0], "learning_rate", place) for place in range(3)])
    flat = float(plain[0.0]["learning_rate"].iloc[-1] / plain[0.0]["learning_rate"].iloc[-4])
    heavy_rise = np.mean([slope(heavy[0.0], "learning_rate", place) for place in range(5)])
    ratios = (heavy[0.0]["learning_rate"] / plain[0.0]["learning_rate"]).to_numpy()[:3]
    checks = [
        Check("SGD: linear in the batch size, then flat",
              f"as B^{rise:.2f} from 4 to 256; changes by a factor {flat:.2f} over the last factor 64",
              abs(rise - 1) < 0.1 and abs(flat - 1) < 0.1),
        Check("momentum: the effective rate is linear, too", f"as B^{heavy_rise:.2f} from 4 to 4,096",
              abs(heavy_rise - 1) < 0.15),
        Check("at small batches both are the same",
              "effective rate over SGD's: " + ", ".join(f"{r:.2f}" for r in ratios) + " at B = 4, 16, 64 (the grid's "
              "rates are 1.23 apart)", bool(np.abs(np.log(ratios)).max() < 0.3)),
    ]  # fmt: skip
    frame = pd.concat([*heavy.values(), *plain.values()], ignore_index=True)
    drawn = frame[["batch_size", "learning_rate", "power", "line"]]
    words = ("nqm-figure-14", "The best learning rate grows with the batch size, then stays",
             "Colours: power p of the preconditioner. Solid: momentum, of which it is the effective rate, learning "
             "rate over 1 - momentum; dashed: plain SGD.")  # fmt: skip
    axis = Axis("learning_rate", "best (effective) learning rate", format=".0e")
    figure = line_figure(words, drawn, _X, axis, colour="power", colour_title="power p")
    return Exhibit("Figure 14", figure, checks, frame)
