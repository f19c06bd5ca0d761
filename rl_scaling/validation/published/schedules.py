"""Figures 3b, 3c and 15 of Zhang et al. 2019: learning rates in 50 constant pieces, optimised."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rl_scaling.domains.nqm.schedules import PiecewiseSchedule, piecewise_steps_to_target
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.report.gallery import Check, Exhibit
from rl_scaling.validation.published.drawing import Axis, line_figure
from rl_scaling.validation.published.steps import BATCH_SIZES, BAYES_BOUND, bound, slope, tuned

_POWERS = (0.0, 0.5)
_PIECES = 50
_LINE = f"{_PIECES} optimised pieces"


def schedule_figures() -> tuple[Exhibit, Exhibit, Exhibit]:
    """Figures 3b, 3c and 15, which share their schedules."""
    spectrum = Spectrum.published()
    found = {
        (p, schedule.batch_size): schedule
        for p in _POWERS
        for schedule in piecewise_steps_to_target(BATCH_SIZES, pieces=_PIECES, power=p, spectrum=spectrum)
    }
    plain = {size: found[0.0, size] for size in BATCH_SIZES}
    return _figure_3b(found), _figure_3c(plain), _figure_15(plain)


def _figure_3b(found: dict[tuple[float, float], PiecewiseSchedule]) -> Exhibit:
    rows = [(size, schedule.steps, p, _LINE) for (p, size), schedule in found.items()]
    scheduled = pd.DataFrame(rows, columns=pd.Index(["batch_size", "steps", "power", "line"]))
    constant = pd.concat([tuned("sgd", p) for p in _POWERS])[scheduled.columns]
    own, sgd = scheduled[scheduled["power"] == 0.0], constant[constant["power"] == 0.0]
    gains = (sgd["steps"].to_numpy() / own["steps"].to_numpy())[[0, -1]]
    above = (own["steps"] * own["batch_size"] / BAYES_BOUND).to_numpy()
    best = scheduled[scheduled["power"] == 0.5]
    above_best = float(best["steps"].iloc[0] * best["batch_size"].iloc[0] / BAYES_BOUND)
    checks = [
        Check("schedules help much at small batches", f"{gains[0]:.1f} times fewer steps at B = 4", gains[0] > 3),
        Check("with the same linear scaling", f"steps fall as B^{slope(own):.2f} from B = 4 to 16",
              abs(slope(own) + 1) < 0.1),
        Check("they nearly reach the lower bound",
              f"{above[0]:.2f} times the Bayes bound at B = 4 (p = 0), {above_best:.2f} times with p = 0.5",
              above[0] < 2),
        Check("and do not help at large batches", f"{gains[1]:.2f} times fewer steps at B = 4^10",
              bool(0.97 < gains[1] < 1.06)),
    ]  # fmt: skip
    frame = pd.concat([scheduled, constant, bound()], ignore_index=True)
    words = ("nqm-figure-3b", "Optimised schedules close most of the gap to the bound where batches are small",
             "Colours: power p of the preconditioner. Solid: 50 constant learning rates, optimised, in a number of "
             "steps that is a multiple of 50, which is why p = 0.5 ends above plain SGD; dashed: plain SGD on the "
             "published grid; dotted: the lower bound d/2N.")  # fmt: skip
    axes = Axis("batch_size", "batch size (examples)"), Axis("steps", "steps to a risk of 0.01")
    return Exhibit("Figure 3b", line_figure(words, frame, *axes, colour="power", colour_title="power p"), checks, frame)


def _figure_3c(plain: dict[float, PiecewiseSchedule]) -> Exhibit:
    place = (np.arange(_PIECES) + 0.5) / _PIECES
    rows = [
        pd.DataFrame(
            {"share": place, "learning_rate": plain[size].learning_rates, "batch_size": size, "line": "schedule"}
        )
        for size in BATCH_SIZES[::2]
    ]
    frame = pd.concat(rows, ignore_index=True)
    starts = np.array([schedule.learning_rates[0] for schedule in plain.values()])
    falls = {size: float(plain[size].learning_rates[0] / plain[size].learning_rates[-1]) for size in BATCH_SIZES[::2]}
    rising = max(
        float(np.max(s.learning_rates[1:] / s.learning_rates[:-1])) for size, s in plain.items() if size <= 1024
    )
    checks = [
        Check("all batch sizes start at the same learning rate",
              f"from {starts.min():.3f} to {starts.max():.3f}, the stability limit being 2",
              bool(starts.max() / starts.min() < 1.05)),
        Check("small batches end far lower",
              "first over last rate: " + ", ".join(f"{fall:,.0f} (B = {size:,.0f})" for size, fall in falls.items()),
              falls[BATCH_SIZES[0]] > 100 * falls[BATCH_SIZES[-2]]),
        Check("rates fall all along", f"up to B = 1,024 no piece is more than {rising:.2f} times the one before it",
              rising < 1.05),
    ]  # fmt: skip
    words = ("nqm-figure-3c", "Optimised schedules start high and fall, the further the smaller the batch",
             "Plain SGD, p = 0; colours: batch size; each schedule over its own number of steps.")  # fmt: skip
    axes = Axis("share", "share of training", log=False), Axis("learning_rate", "learning rate", format=".0e")
    figure = line_figure(words, frame, *axes, colour="batch_size", colour_title="batch size", points=False)
    return Exhibit("Figure 3c", figure, checks, frame)


def _figure_15(plain: dict[float, PiecewiseSchedule]) -> Exhibit:
    frame = pd.DataFrame({"batch_size": list(plain), "learning_rate": [s.learning_rates[-1] for s in plain.values()]})
    frame = frame.assign(power=0.0, line="last of 50 pieces")
    rise = np.mean([slope(frame, "learning_rate", place) for place in range(3)])
    checks = [
        Check("the last learning rate is linear in the batch size", f"as B^{rise:.2f} from 4 to 256",
              abs(rise - 1) < 0.1),
    ]  # fmt: skip
    words = ("nqm-figure-15", "The last learning rate of the best schedule is linear in the batch size",
             "Plain SGD, p = 0; at large batches it meets the stability limit.")  # fmt: skip
    axes = Axis("batch_size", "batch size (examples)"), Axis("learning_rate", "last learning rate", format=".0e")
    return Exhibit("Figure 15", line_figure(words, frame, *axes, colour="power", colour_title="power p"), checks, frame)
