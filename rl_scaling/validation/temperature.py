"""Does the noise scale follow the temperature (McCandlish et al. 2018, appendix C and Figure 15)?

SGD near the minimum of a loss wanders about it: the larger T = learning rate / batch size, the further, and the larger
|G|^2, while tr(Sigma) stays. So B_simple = tr(Sigma) / |G|^2 goes as 1 / T (eqs. C.1, C.2). Here a network is trained
until its loss is flat; then T is lowered by a factor for a while, through the learning rate, the batch size or both,
and raised again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd
import torch

from rl_scaling.config import ConfigError
from rl_scaling.estimates import Estimate
from rl_scaling.noise import NoiseScaleEstimate, NoiseScaleMeter
from rl_scaling.report.figures import Figure, Tables
from rl_scaling.report.theme import count_axis, legend, log_axis, named_colour, on_same_axis
from rl_scaling.validation.digits import GroupedSGD, load_digits, small_mlp
from rl_scaling.validation.settings import TemperatureSettings, What

_EXACT_EVERY = 20  # updates between two gradients of all the data, in the measured half of a phase
_CURVE_POINTS = 60  # of a phase


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One third of a run.

    Attributes:
        name: before, during or after.
        learning_rate, batch_size: of every update in it.
        estimate: B_simple over the second half of the phase, from the groups of the training batches.
        b_simple_exact: the same with |G|^2 averaged over gradients of all the data: what `estimate` should find.
        loss: mean loss of all the data in the second half, weight decay included.
    """

    name: str
    learning_rate: float
    batch_size: int
    estimate: NoiseScaleEstimate
    b_simple_exact: float
    loss: float

    @property
    def temperature(self) -> float:
        """T = learning rate / batch size, of plain SGD."""
        return self.learning_rate / self.batch_size


@dataclass(frozen=True, kw_only=True)
class TemperatureRun:
    """The three phases for one way of changing the temperature.

    Attributes:
        what: was changed.
        phases: before, during, after.
        curve: the running estimate along the way: phase, updates (since the first phase began), b_simple (NaN while
            unresolved), low and high.
    """

    what: What
    phases: tuple[Phase, ...]
    curve: pd.DataFrame

    @property
    def expected(self) -> float:
        """What eq. C.2 expects of `ratio`: T before over T during."""
        return self.phases[0].temperature / self.phases[1].temperature

    @property
    def ratio(self) -> Estimate:
        """B_simple during over B_simple before."""
        return ratio_of_estimates(self.phases[1].estimate, self.phases[0].estimate)

    @property
    def return_ratio(self) -> Estimate:
        """B_simple after over B_simple before; 1 is expected."""
        return ratio_of_estimates(self.phases[2].estimate, self.phases[0].estimate)

    @property
    def exact_ratio(self) -> float:
        """`ratio` with |G|^2 from all the data."""
        return self.phases[1].b_simple_exact / self.phases[0].b_simple_exact


def ratio_of_estimates(numerator: NoiseScaleEstimate, denominator: NoiseScaleEstimate) -> Estimate:
    """The ratio of two independent noise scales; without a value, and with an open end, where one is not resolved.

    Each end adds the two distances in logs in squares (MOVER, Donner and Zou 2012): intervals need not be symmetric.
    """
    reason = "a noise scale is not resolved"
    if not denominator.resolved:
        return Estimate(math.nan, 0.0, math.inf, reason)
    if not numerator.resolved:
        return Estimate(math.nan, numerator.low / denominator.high, math.inf, reason)

    def end(top: float, bottom: float, sign: int) -> float:
        reach = math.hypot(math.log(top / numerator.b_simple), math.log(bottom / denominator.b_simple))
        return numerator.b_simple / denominator.b_simple * math.exp(sign * reach)

    value = numerator.b_simple / denominator.b_simple
    return Estimate(value, end(numerator.low, denominator.high, -1), end(numerator.high, denominator.low, 1))


def temperature_runs(
    settings: TemperatureSettings, whats: Sequence[What], progress: Callable[[str], None]
) -> Iterator[TemperatureRun]:
    """One run for each way of changing the temperature, all from the same pretrained network.

    Raises:
        ConfigError: scikit-learn is not installed, or training diverged.
    """
    start = _untrained(settings)
    start.train(settings.pretrain_updates, learning_rate=settings.learning_rate, batch_size=settings.batch_size)
    progress(f"pretrained for {settings.pretrain_updates:,} updates: loss {start.whole()[1]:.3f}")
    for what in whats:
        yield _run(settings, what, start.copy(), progress)


def _untrained(settings: TemperatureSettings) -> GroupedSGD:
    """The network on digits of which some have random labels."""
    generator = torch.Generator().manual_seed(settings.seed)
    images, classes = load_digits()
    wrong = torch.rand(len(classes), generator=generator) < settings.label_noise
    classes = torch.where(wrong, torch.randint(10, classes.shape, generator=generator), classes)
    model = small_mlp(settings.hidden, settings.seed)
    return GroupedSGD(model, (images, classes), generator, groups=settings.groups, weight_decay=settings.weight_decay)


def _run(
    settings: TemperatureSettings, what: What, training: GroupedSGD, progress: Callable[[str], None]
) -> TemperatureRun:
    running = NoiseScaleMeter(settings.batch_size / settings.groups, window=settings.window)
    phases, curves = [], []
    for plan in settings.phases(what):
        phase, curve = _phase(settings, training, running, plan)
        curve["updates"] += len(phases) * settings.phase_updates
        phases.append(phase)
        curves.append(curve)
        progress(f"{what}, {phase.name}: {phase.estimate}")
    return TemperatureRun(what=what, phases=tuple(phases), curve=pd.concat(curves, ignore_index=True))


def _phase(
    settings: TemperatureSettings, training: GroupedSGD, running: NoiseScaleMeter, plan: tuple[str, float, int]
) -> tuple[Phase, pd.DataFrame]:
    """The phase, and its part of the curve, whose updates are counted from its start."""
    name, learning_rate, batch_size = plan
    size = batch_size / settings.groups
    meter = NoiseScaleMeter(size)
    exact, points = [], []
    every = max(1, settings.phase_updates // _CURVE_POINTS)
    for update in range(1, settings.phase_updates + 1):
        late = update > settings.phase_updates // 2
        if late and update % _EXACT_EVERY == 0:
            exact.append(training.whole())
        norms, batch = training.update(learning_rate, batch_size)
        if not math.isfinite(batch):
            raise ConfigError(f"training diverged at a learning rate of {learning_rate:g}: give a smaller one")
        running.update(norms, batch, group_sizes=[size] * settings.groups, learning_rate=learning_rate)
        if late:
            meter.update(norms, batch, learning_rate=learning_rate)
        if update % every == 0:
            now = running.estimate()
            points.append((name, update, now.b_simple, now.low, now.high))
    estimate = meter.estimate()
    square, loss = np.mean(exact or [training.whole()], axis=0)
    found = Phase(
        name=name,
        learning_rate=learning_rate,
        batch_size=batch_size,
        estimate=estimate,
        b_simple_exact=estimate.trace_cov / float(square),
        loss=float(loss),
    )
    return found, pd.DataFrame(points, columns=pd.Index(["phase", "updates", "b_simple", "low", "high"]))


_COLOURS = {
    "learning-rate": "var(--critical)",
    "batch-size": "var(--noise)",
    "both": "var(--good)",
}


def temperature_figure(runs: Sequence[TemperatureRun]) -> Figure:
    """The running noise scale over updates, a line for each way of changing the temperature, beside 1 / T."""
    tables = Tables()
    curves = pd.concat([run.curve.assign(what=run.what) for run in runs], ignore_index=True)
    expected = pd.concat([_expected(run) for run in runs], ignore_index=True)
    values = pd.concat([curves["b_simple"], curves["low"], expected["b_simple"]])
    x = count_axis(alt.X, "updates", "updates since the network was trained")
    y = log_axis(alt.Y, "b_simple", "noise scale (examples, log scale)", values[values > 0].quantile([0.01, 1]))
    means = pd.concat([_means(run) for run in runs], ignore_index=True)
    names = [run.what for run in runs]
    colour = named_colour("what", names, [_COLOURS[name] for name in names], legend("changed", entry_width=110))
    band = on_same_axis(y, "low")
    resolved = curves[np.isfinite(curves["high"])]
    bounds = curves[curves["b_simple"].isna() & (curves["low"] > 0)]
    columns = ["what", "phase", "updates", "b_simple", "low", "high"]
    layers = [
        alt.Chart(tables.add(resolved, columns))
        .mark_rule(opacity=0.25, strokeWidth=3, clip=True)
        .encode(x=x, y=band, y2="high:Q", color=colour),
        alt.Chart(tables.add(resolved, columns))
        .mark_point(size=22, filled=True, clip=True)
        .encode(x=x, y=y, color=colour),
        alt.Chart(tables.add(bounds, columns))
        .mark_point(shape="triangle-up", size=30, opacity=0.6, clip=True)
        .encode(x=x, y=band, color=colour),
        alt.Chart(tables.add(means, ["what", "phase", "updates", "b_simple"]))
        .mark_line(strokeWidth=3.5)
        .encode(x=x, y=y, color=colour, detail="phase:N"),
        alt.Chart(tables.add(expected, ["what", "phase", "updates", "b_simple"]))
        .mark_line(strokeDash=[5, 4], strokeWidth=1.5, color="var(--ink)")
        .encode(x=x, y=y, detail=["what:N", "phase:N"]),
    ]
    caption = (
        "Points: running estimate with its 95 % interval; triangles: not resolved, the noise scale is at least this. "
        "Thick: the whole second half of a phase. Dashed: the first phase's noise scale times its temperature over the "
        "present one."
    )
    return Figure("temperature", "The noise scale follows the temperature", caption, alt.layer(*layers), tables)


def _means(run: TemperatureRun) -> pd.DataFrame:
    """What the measured half of each phase gave, where it is resolved."""
    return _levels(run, 0.5, [phase.estimate.b_simple for phase in run.phases])


def _expected(run: TemperatureRun) -> pd.DataFrame:
    first = run.phases[0]
    unit = first.estimate.b_simple * first.temperature
    return _levels(run, 0.0, [unit / phase.temperature for phase in run.phases])


def _levels(run: TemperatureRun, start: float, values: Sequence[float]) -> pd.DataFrame:
    """Two ends of a level line for each phase, from the share `start` of it on."""
    third = int(run.curve["updates"].iloc[-1]) / len(run.phases)
    rows = [
        {"what": run.what, "phase": phase.name, "updates": int((place + end) * third), "b_simple": value}
        for place, (phase, value) in enumerate(zip(run.phases, values, strict=True))
        for end in (start, 1.0)
    ]
    return pd.DataFrame(rows).dropna()
