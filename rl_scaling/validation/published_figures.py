"""Every figure of Zhang et al. 2019 that is made of the noisy quadratic model, with what it should show beside it.

*Which Algorithmic Choices Matter at Which Batch Sizes?* needs nothing but `rl_scaling.domains.nqm` for these, so they
are computed anew in seconds.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd

from rl_scaling.analysis import fit_tradeoff
from rl_scaling.domains.nqm.dynamics import risk
from rl_scaling.domains.nqm.schedules import PiecewiseSchedule, final_risk, piecewise_steps_to_target
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.domains.nqm.tuning import as_table, steps_to_target
from rl_scaling.validation.gallery import Axis, Check, Exhibit, line_figure

BATCH_SIZES = 4.0 ** np.arange(1, 11)
POWERS = (0.0, 0.25, 0.5, 0.75)
TARGETS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
# N at which d / (2 N) is the target 0.01, and at which the Bayes risk is.
PUBLISHED_BOUND, BAYES_BOUND = 500_000, 495_016
_X = Axis("batch_size", "batch size (examples)")
_STEPS = Axis("steps", "steps to a risk of 0.01")
_BY_POWER = {"colour": "power", "colour_title": "power p"}
# Figures 3b, 3c and 15: powers, and constant pieces of a schedule.
_SCHEDULE_POWERS = (0.0, 0.5)
_PIECES = 50
_PIECES_LINE = f"{_PIECES} optimised pieces"
# Figures 1, 2 and 11: single directions of the quadratic.
_CURVATURES = (1.0, 0.1, 0.01)
_RATE, _BATCH = 0.5, 4.0
_SGD = "SGD at rate/(1 - momentum)"


def exhibits() -> list[Exhibit]:
    """Figures 1, 2, 3a, 3b, 3c, 4, 11, 13, 14 and 15, with their checks."""
    figure_3b, figure_3c, figure_15 = _schedule_figures()
    later = [figure_4(), figure_11(), figure_13(), figure_14(), figure_15]
    return [figure_1(), figure_2(), figure_3a(), figure_3b, figure_3c, *later]


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
    """The slope of log `column` over log batch size between the batch sizes number `first` and `first` + 1."""
    values, sizes = found[column].to_numpy(), found["batch_size"].to_numpy()
    return float(np.log(values[first + 1] / values[first]) / np.log(sizes[first + 1] / sizes[first]))


def _ratio(one: pd.DataFrame, other: pd.DataFrame, place: int) -> float:
    return float(one["steps"].iloc[place] / other["steps"].iloc[place])


def _exhibit(
    number: str, words: tuple[str, str], checks: list[Check], frame: pd.DataFrame, x: Axis, y: Axis, **lines: Any
) -> Exhibit:
    """A figure of lines by its number, with its title and what its marks mean; `lines` are those of `line_figure`."""
    figure = line_figure((f"nqm-figure-{number}", *words), frame, x, y, **lines)
    return Exhibit(f"Figure {number}", figure, checks, frame)


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
    words = ("Momentum helps at large batches, preconditioning at all",
             "Colours: power p of the preconditioner; published grids and counts. Solid: momentum; dashed: plain SGD; "
             "dotted: the lower bound d/2N.")  # fmt: skip
    return _exhibit("3a", words, checks, frame, _X, _STEPS, **_BY_POWER)


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
    words = ("Averaging the iterates helps where batches are small",
             "Colours: power p of the preconditioner; published grids and counts. Solid: averaged; dashed: plain SGD; "
             "dotted: the lower bound d/2N.")  # fmt: skip
    return _exhibit("4", words, checks, frame, _X, _STEPS, **_BY_POWER)


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
    words = ("Harder targets take more steps and larger critical batch sizes",
             "Plain SGD, published grid; colours: the risk to reach.")  # fmt: skip
    axis = Axis("steps", "steps to the target")
    return _exhibit("13", words, checks, frame, _X, axis, colour="target", colour_title="target risk")


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
    words = ("The best learning rate grows with the batch size, then stays",
             "Colours: power p of the preconditioner. Solid: momentum, of which it is the effective rate, learning "
             "rate over 1 - momentum; dashed: plain SGD.")  # fmt: skip
    axis = Axis("learning_rate", "best (effective) learning rate", format=".0e")
    return _exhibit("14", words, checks, frame, _X, axis, **_BY_POWER)


def _schedule_figures() -> tuple[Exhibit, Exhibit, Exhibit]:
    """Figures 3b, 3c and 15, which share their schedules."""
    spectrum = Spectrum.published()
    found = {
        (p, schedule.batch_size): schedule
        for p in _SCHEDULE_POWERS
        for schedule in piecewise_steps_to_target(BATCH_SIZES, pieces=_PIECES, power=p, spectrum=spectrum)
    }
    plain = {size: found[0.0, size] for size in BATCH_SIZES}
    return _figure_3b(found), _figure_3c(plain), _figure_15(plain)


def _figure_3b(found: dict[tuple[float, float], PiecewiseSchedule]) -> Exhibit:
    rows = [(size, schedule.steps, p, _PIECES_LINE) for (p, size), schedule in found.items()]
    scheduled = pd.DataFrame(rows, columns=pd.Index(["batch_size", "steps", "power", "line"]))
    constant = pd.concat([tuned("sgd", p) for p in _SCHEDULE_POWERS])[scheduled.columns]
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
    words = ("Optimised schedules close most of the gap to the bound where batches are small",
             "Colours: power p of the preconditioner. Solid: 50 constant learning rates, optimised, in a number of "
             "steps that is a multiple of 50, which is why p = 0.5 ends above plain SGD; dashed: plain SGD on the "
             "published grid; dotted: the lower bound d/2N.")  # fmt: skip
    return _exhibit("3b", words, checks, frame, _X, _STEPS, **_BY_POWER)


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
    words = ("Optimised schedules start high and fall, the further the smaller the batch",
             "Plain SGD, p = 0; colours: batch size; each schedule over its own number of steps.")  # fmt: skip
    axes = Axis("share", "share of training", log=False), Axis("learning_rate", "learning rate", format=".0e")
    return _exhibit("3c", words, checks, frame, *axes, colour="batch_size", colour_title="batch size", points=False)


def _figure_15(plain: dict[float, PiecewiseSchedule]) -> Exhibit:
    frame = pd.DataFrame({"batch_size": list(plain), "learning_rate": [s.learning_rates[-1] for s in plain.values()]})
    frame = frame.assign(power=0.0, line="last of 50 pieces")
    rise = np.mean([slope(frame, "learning_rate", place) for place in range(3)])
    checks = [
        Check("the last learning rate is linear in the batch size", f"as B^{rise:.2f} from 4 to 256",
              abs(rise - 1) < 0.1),
    ]  # fmt: skip
    words = ("The last learning rate of the best schedule is linear in the batch size",
             "Plain SGD, p = 0; at large batches it meets the stability limit.")  # fmt: skip
    axis = Axis("learning_rate", "last learning rate", format=".0e")
    return _exhibit("15", words, checks, frame, _X, axis, **_BY_POWER)


def figure_1() -> Exhibit:
    """Risk of directions of different curvature, with a constant learning rate and with one that falls."""
    steps = np.unique(np.geomspace(1, 4000, 80).astype(int))
    rows = []
    for h in _CURVATURES:
        spectrum = Spectrum.from_eigenvalues([h])
        constant = risk(spectrum, steps, learning_rate=_RATE, batch_size=_BATCH)
        falling = [_after_falling(spectrum, int(t)) for t in steps]
        for line, values in (("constant rate", constant), ("falling rate", falling)):
            rows.append(pd.DataFrame({"step": steps, "risk": values, "curvature": h, "line": line}))
    frame = pd.concat(rows, ignore_index=True)
    ends = frame[frame["step"] == steps[-1]].set_index(["line", "curvature"])["risk"]
    floors = [float(ends["constant rate", h]) for h in _CURVATURES]
    lowered = [float(ends["constant rate", h] / ends["falling rate", h]) for h in _CURVATURES[:2]]
    halves = [int(steps[np.flatnonzero(frame[(frame.curvature == h) & (frame.line == "constant rate")].risk
                                       < h / 4)[0]]) for h in _CURVATURES]  # fmt: skip
    checks = [
        Check(
            "high curvature settles first",
            "half the starting risk after " + ", ".join(f"{n:,}" for n in halves) + " steps at h = 1, 0.1, 0.01",
            halves == sorted(halves),
        ),
        Check(
            "and at a higher floor",
            "risk at the end " + ", ".join(f"{x:.2g}" for x in floors),
            floors == sorted(floors, reverse=True),
        ),
        Check(
            "a falling learning rate lowers the floor",
            f"{lowered[0]:.1f} times lower at h = 1, {lowered[1]:.1f} times at h = 0.1",
            min(lowered) > 1.5,
        ),
    ]
    words = ("Risk of single directions while the learning rate stays or falls",
             f"Learning rate {_RATE}, batch size {_BATCH:g}. Every point of a dashed line is a run of its own, whose "
             "rate falls exponentially to a hundredth over its steps.")  # fmt: skip
    axes = Axis("step", "steps"), Axis("risk", "risk of the direction", format=".0e")
    return _exhibit("1", words, checks, frame, *axes, colour="curvature", colour_title="curvature h", points=False)


def _after_falling(spectrum: Spectrum, steps: int) -> float:
    rates = _RATE * np.geomspace(1, 0.01, 50)
    return final_risk(spectrum, np.log(rates), steps / len(rates), _BATCH)[0]


def figure_2() -> Exhibit:
    """Convergence rate and steady-state risk of momentum against those of SGD at the effective learning rate."""
    momentum = np.linspace(0.0, 0.95, 96)
    rate = 0.0005  # times curvature 1
    trace = 1 - rate + momentum
    root = (trace + np.sqrt(trace**2 - 4 * momentum)) / 2
    effective = rate / (1 - momentum)
    # (6): steady state of the heavy ball; (4): that of SGD.
    steady = (1 + momentum) * rate / (2 * (2 * momentum + 2 - rate) * (1 - momentum))
    steady_sgd = effective / (2 * (2 - effective))
    frame = pd.concat(
        [
            _against(momentum, 1 - root, "1 - convergence rate", "momentum"),
            _against(momentum, effective, "1 - convergence rate", _SGD),
            _against(momentum, steady, "steady-state risk", "momentum"),
            _against(momentum, steady_sgd, "steady-state risk", _SGD),
        ],
        ignore_index=True,
    )
    worst = np.abs((1 - root) / effective - 1)
    at_09 = int(np.abs(momentum - 0.9).argmin())
    off = np.abs(steady / steady_sgd - 1).max()
    checks = [
        Check(
            "the convergence rate is that of SGD at the effective rate",
            f"1 - r1 differs by {worst[at_09]:.1%} at momentum 0.9 and by {worst.max():.0%} at 0.95, where the roots "
            "soon coincide (0.956)",
            bool(worst[at_09] < 0.1),
        ),
        Check("so is the steady-state risk", f"it differs by at most {off:.2%}", bool(off < 0.01)),
    ]
    words = ("Momentum in one direction equals SGD at the effective learning rate",
             "Learning rate times curvature 0.0005, batch size 1. Wide and pale: SGD; dashed: momentum.")  # fmt: skip
    axes = Axis("momentum", "momentum", log=False), Axis("value", "1 - convergence rate, or risk", format=".0e")
    return _exhibit("2", words, checks, frame, *axes, colour="what", colour_title="", points=False, band=_SGD)


def _against(momentum: np.ndarray, values: np.ndarray, what: str, line: str) -> pd.DataFrame:
    return pd.DataFrame({"momentum": momentum, "value": values, "what": what, "line": line})


def figure_11() -> Exhibit:
    """What is left of the starting risk under momentum and under SGD at the effective learning rate."""
    spectrum = Spectrum.published()
    steps = np.unique(np.geomspace(1, 100_000, 120).astype(int))
    rows = []
    for momentum in (0.5, 0.9, 0.99):
        rate = 0.5 * (1 - momentum)
        for line, name, alpha, beta in (("momentum", "momentum", rate, momentum),
                                        (_SGD, "sgd", rate / (1 - momentum), 0.0)):  # fmt: skip
            settings = {"learning_rate": alpha, "coefficient": beta, "optimizer": name}
            values = risk(spectrum, steps, batch_size=np.inf, **settings) / spectrum.initial_risk
            rows.append(pd.DataFrame({"step": steps, "risk": values, "momentum": momentum, "line": line}))
    frame = pd.concat(rows, ignore_index=True)
    wide = frame.pivot_table(index=["momentum", "step"], columns="line", values="risk")
    gap = (wide["momentum"] - wide[_SGD]).abs()
    late = gap[gap.index.get_level_values("step") >= 1000]
    checks = [
        Check(
            "both fall alike, whatever the momentum",
            f"they differ by at most {late.max():.4f} of the starting risk after 1,000 steps; before that by up to "
            f"{gap.max():.2f}, while momentum builds up its speed",
            bool(late.max() < 0.01),
        )
    ]
    words = ("The starting risk fades alike under momentum and SGD at the effective learning rate",
             "First term of eq. 6 over its start; effective learning rate 0.5, whole spectrum. Wide and pale: SGD, the "
             "same for all colours; dashed: momentum.")  # fmt: skip
    axes = Axis("step", "steps"), Axis("risk", "share of the starting risk", format=".0e")
    return _exhibit(
        "11", words, checks, frame, *axes, colour="momentum", colour_title="momentum", points=False, band=_SGD
    )
