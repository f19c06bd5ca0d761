"""Figures 1, 2 and 11 of Zhang et al. 2019: what happens in single directions of the quadratic."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rl_scaling.domains.nqm.dynamics import risk
from rl_scaling.domains.nqm.schedules import final_risk
from rl_scaling.domains.nqm.spectrum import Spectrum
from rl_scaling.report.gallery import Check, Exhibit
from rl_scaling.validation.published.drawing import Axis, line_figure

_CURVATURES = (1.0, 0.1, 0.01)
_RATE, _BATCH = 0.5, 4.0
_SGD = "SGD at rate/(1 - momentum)"


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
    words = ("nqm-figure-1", "Risk of single directions while the learning rate stays or falls",
             f"Learning rate {_RATE}, batch size {_BATCH:g}. Every point of a dashed line is a run of its own, whose "
             "rate falls exponentially to a hundredth over its steps.")  # fmt: skip
    axes = Axis("step", "steps"), Axis("risk", "risk of the direction", format=".0e")
    figure = line_figure(words, frame, *axes, colour="curvature", colour_title="curvature h", points=False)
    return Exhibit("Figure 1", figure, checks, frame)


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
    words = ("nqm-figure-2", "Momentum in one direction equals SGD at the effective learning rate",
             "Learning rate times curvature 0.0005, batch size 1. Wide and pale: SGD; dashed: momentum.")  # fmt: skip
    axes = Axis("momentum", "momentum", log=False), Axis("value", "1 - convergence rate, or risk", format=".0e")
    figure = line_figure(words, frame, *axes, colour="what", colour_title="", points=False, band=_SGD)
    return Exhibit("Figure 2", figure, checks, frame)


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
    words = ("nqm-figure-11", "The starting risk fades alike under momentum and SGD at the effective learning rate",
             "First term of eq. 6 over its start; effective learning rate 0.5, whole spectrum. Wide and pale: SGD, the "
             "same for all colours; dashed: momentum.")  # fmt: skip
    axes = Axis("step", "steps"), Axis("risk", "share of the starting risk", format=".0e")
    figure = line_figure(words, frame, *axes, colour="momentum", colour_title="momentum", points=False, band=_SGD)
    return Exhibit("Figure 11", figure, checks, frame)
