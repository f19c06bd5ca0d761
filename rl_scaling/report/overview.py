"""The first part of the page: does the noise scale predict the critical batch size, over all domains measured?

Beside it stand the values of McCandlish et al. 2018, Table 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from rl_scaling.analysis import Agreement, SweepFit, pairs_of
from rl_scaling.analysis.agreement import ALL, DOMAINS, SCALES, Farthest, agreements, farthest_task, scales
from rl_scaling.estimates import DASH, Estimate, count_of, interval, number
from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.theme import bounded, percent

SOURCE = "McCandlish et al. 2018, Table 1"
NAN = math.nan


@dataclass(frozen=True)
class PublishedScale:
    """One task of the table; where the paper gives a range over several games it is kept as one.

    Attributes:
        task: as the paper calls it.
        unit: what a batch is counted in.
        critical_start, critical_end: critical batch size early and late in training.
        noise_start, noise_mean: simple noise scale at the start and averaged over training.
    """

    task: str
    unit: str
    critical_start: Estimate
    critical_end: Estimate
    noise_start: Estimate
    noise_mean: Estimate


def _scale(task: str, unit: str, *values: float | tuple[float, float]) -> PublishedScale:
    """A pair is a range without a value, or a lower bound."""
    return PublishedScale(
        task, unit, *(Estimate(NAN, *v) if isinstance(v, tuple) else Estimate(v, v, v) for v in values)
    )


PUBLISHED = (
    _scale("MNIST", "examples", 20, 200, 50, 900),
    _scale("SVHN", "examples", 50, 500, 300, 4_000),
    _scale("CIFAR-10", "examples", 300, 900, 400, 2_000),
    _scale("ImageNet", "examples", 1_000, 15_000, 4_000, 30_000),
    _scale("SVHN autoencoder", "examples", 10, 40, 2, 2),
    _scale("SVHN VAE", "examples", 10, 200, 10, 10),
    _scale("Billion Word", "tokens", 700, 100_000, 1_000, 150_000),
    _scale("Atari", "frames", (100, 1_000), (400, 8_000), (100, 1_000), (1_000, 20_000)),
    _scale("Dota 1v1", "frames", 50_000, 3_000_000, 100_000, 300_000),
    _scale("Dota 5v5", "frames", (NAN, NAN), (8_000_000, math.inf), 100_000, 24_000_000),
)


def published_pairs() -> pd.DataFrame:
    """The end of training of every task, as points for a chart.

    Returns:
        Columns task, unit, noise_scale, critical_batch and their _low and _high; a range is a point at its geometric
        middle. Tasks with a bound alone are left out.
    """
    rows = [
        {"task": scale.task, "unit": scale.unit}
        | _point("noise_scale", scale.noise_mean)
        | _point("critical_batch", scale.critical_end)
        for scale in PUBLISHED
        if math.isfinite(scale.critical_end.high)
    ]
    return pd.DataFrame(rows)


def _point(name: str, scale: Estimate) -> dict[str, float]:
    return Estimate((scale.low * scale.high) ** 0.5, scale.low, scale.high).columns(name)


# A typical factor up to this is called the right order of magnitude.
_GOOD = math.sqrt(10)
OVERVIEW = "All domains on one page"


@dataclass(frozen=True)
class Overview:
    """What is compared over all domains.

    Attributes:
        fit: of all runs.
        domains: the domain of every task in it.
        runs: how many.
        command: that makes the page.
        left_out: tasks of the folders that are not on the page because they have no goals.
        missing: folders that were named but do not exist.
    """

    fit: SweepFit
    domains: Mapping[str, str]
    runs: int
    command: str = ""
    left_out: Sequence[str] = ()
    missing: Sequence[str] = ()

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Goals with both batch sizes known; see `rl_scaling.analysis.pairs_of`."""
        return pairs_of(self.fit.fits, self.domains)

    @property
    def confidence(self) -> float:
        """Of all intervals."""
        return float(self.fit.fits["confidence"].iloc[0])

    @cached_property
    def agreements(self) -> dict[str, Agreement]:
        """See `rl_scaling.analysis.agreement.agreements`."""
        return agreements(self.pairs, confidence=self.confidence)

    @cached_property
    def farthest(self) -> Farthest | None:
        """See `rl_scaling.analysis.agreement.farthest_task`."""
        return farthest_task(self.pairs, confidence=self.confidence)

    @cached_property
    def scales(self) -> pd.DataFrame:
        """See `rl_scaling.analysis.agreement.scales`."""
        return scales(self.fit.fits, self.domains)


def overview_html(overview: Overview, identity: str, figures: Sequence[Html]) -> Html:
    """Answer, charts and tables of the first part; `figures` is the markup of the overview's charts."""
    explained = tag(
        "p",
        "Every point of the chart is a goal of one task. B",
        tag("sub", "crit"),
        " comes from a sweep over batch sizes: the turn of the fitted curve of examples against updates. B",
        tag("sub", "simple"),
        " is measured while the best runs of that sweep train and averaged over their way to the goal: one run would "
        "do. If the noise scale predicted the critical batch size exactly, all points would lie on the diagonal.",
    )
    return tag(
        "section",
        tag("div", tag("h2", OVERVIEW), class_="heading"),
        answer(overview.agreements, overview.farthest),
        explained,
        _left_out(overview),
        tag("div", *figures, class_="grid"),
        tag("h3", "How well one predicts the other"),
        tag("div", agreement_table(overview), class_="card"),
        tag("h3", "Early and late in training, beside published values"),
        tag("div", scales_table(overview.scales), class_="card"),
        id=identity,
    )


def _left_out(overview: Overview) -> Html:
    """What was asked for and is not on the page."""
    parts: list[object] = []
    if overview.missing:
        words = f"Left out: no such folder: {', '.join(overview.missing)}."
        parts.append(tag("p", words, class_="missing soft"))
    if overview.left_out:
        summary = tag("summary", f"Not on this page, as they have no goals: {count_of(len(overview.left_out), 'task')}")
        tasks = [", ".join(overview.left_out), ". Runs of a fixed budget are what "]
        parts.append(
            tag("details", summary, tag("p", *tasks, tag("code", "rl-scaling budgets"), " reads.", class_="soft"))
        )
    return join(parts)


def answer(found: Mapping[str, Agreement], farthest: Farthest | None = None) -> Html:
    """The question of the page, answered in a few sentences with numbers."""
    everything = found[ALL]
    if not everything.pairs:
        words: list[object] = ["No task has both a critical batch size and a noise scale yet; the parts below say why."]
        return tag("p", *words, class_="verdict")
    words = [
        tag("strong", _in_words(everything, farthest), " "),
        "Over ",
        f"{count_of(everything.pairs, 'goal')} of {count_of(everything.tasks, 'task')}, the noise scale of the "
        "best runs predicts the critical batch size within a typical factor of ",
        f"{everything.factor.text(2)}; on average the critical batch size is {number(everything.bias.value, 2)} times "
        f"the noise scale{_interval(everything.bias)}; the correlation of the logarithms is "
        f"{everything.correlation.text(2)}.",
    ]
    each = [f"{name}: {number(one.factor.value, 2)}" for name, one in found.items() if name in DOMAINS]
    if len(each) > 1:
        words.append(f" By domain the typical factor is: {', '.join(each)}.")
    if farthest is not None:
        words.append(
            f" Farthest off is {farthest.task}, whose critical batch size is {number(farthest.bias, 2)} times its "
            f"noise scale; without it the typical factor is {farthest.without.factor.text(2)}."
        )
    return tag("p", *words, class_="verdict")


def _in_words(everything: Agreement, farthest: Farthest | None) -> str:
    """The answer before its numbers."""
    if everything.factor.value <= _GOOD:
        return "Yes, to within its order of magnitude."
    if farthest is not None and farthest.without.factor.value <= _GOOD:
        return f"To within its order of magnitude, but not for {farthest.task}."
    return "No: it does not tell the order of magnitude."


def _interval(estimate: Estimate) -> str:
    return f" ({interval(estimate.low, estimate.high, 2)})" if math.isfinite(estimate.low) else ""


def agreement_table(overview: Overview) -> Html:
    """Correlation, typical factor of error and bias of every domain."""
    heads = [
        "Domain",
        "Goals",
        "Tasks",
        "Correlation of logarithms",
        "Typical factor of error",
        join(["B", tag("sub", "crit"), " / B", tag("sub", "simple"), ", geometric mean"]),
    ]
    rows = [
        [name, one.pairs, one.tasks, *(estimate.text(2) for estimate in (one.correlation, one.factor, one.bias))]
        for name, one in overview.agreements.items()
    ]
    note = (
        f"In brackets: {percent(overview.fit.fits)} intervals from a bootstrap over tasks, given where there are three "
        "or more. The typical factor is the exponential of the root mean square of log(B_crit / B_simple)."
    )
    return join([table(heads, rows, words=[0]), tag("p", note, class_="soft")])


def scales_table(measured: pd.DataFrame) -> Html:
    """What `rl_scaling.analysis.agreement.scales` found, and below it the published values."""
    heads = [
        "Task",
        "Counted in",
        "Goals, first and last",
        join(["B", tag("sub", "crit"), ", first goal"]),
        join(["B", tag("sub", "crit"), ", last goal"]),
        join(["B", tag("sub", "simple"), ", on the way to the first"]),
        join(["B", tag("sub", "simple"), ", mean over training"]),
    ]
    rows: list[list[object]] = [
        [
            row["task"],
            row["unit"],
            f"{row['first_goal']:g}; {row['last_goal']:g}",
            *(bounded(Estimate.of(row, name), 2) for name in SCALES),
        ]
        for row in measured.to_dict("records")
    ]
    for scale in PUBLISHED:
        name = join([scale.task, " ", tag("span", "published", class_="pill soft")])
        spans = (scale.critical_start, scale.critical_end, scale.noise_start, scale.noise_mean)
        rows.append([name, scale.unit, DASH, *(bounded(span) for span in spans)])
    note = f"Published: {SOURCE}, at the start and the end of training, Atari as the range over games."
    return join([table(heads, rows, words=[0, 1]), tag("p", note, class_="soft")])
