"""The first part of the page: does the noise scale predict the critical batch size, over all domains measured?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import altair as alt
import pandas as pd

from rl_scaling.analysis import Agreement, SweepFit, agreement, pairs_of
from rl_scaling.analysis.agreement import DOMAINS, FEWEST_TASKS
from rl_scaling.analysis.course import Estimate
from rl_scaling.report.data import Tables
from rl_scaling.report.html import Html, join, table, tag
from rl_scaling.report.numbers import DASH, count_of, interval, number, percent
from rl_scaling.report.published_scales import SOURCE, published_pairs
from rl_scaling.report.scales_table import scales, scales_table
from rl_scaling.report.theme import SERIES_SHAPES, Figure, legend, log_axis, series_colours

# A typical factor up to this is called the right order of magnitude.
_GOOD = math.sqrt(10)
PUBLISHED = "published, end of training"
OVERVIEW = "All domains on one page"
_ALL = "All domains"
_FIELDS = ("noise_scale", "critical_batch")
_COLUMNS = [
    *("domain", "task", "goal", "unit"),
    *(f"{name}{end}" for name in _FIELDS for end in ("", "_low", "_high")),
]


class Farthest(NamedTuple):
    """The task of which the noise scale says least, and what holds for the others."""

    task: str
    bias: float
    without: Agreement


@dataclass(frozen=True)
class Overview:
    """What is compared over all domains.

    Attributes:
        fit: of all runs.
        domains: the domain of every task in it.
        runs: how many.
        command: that makes the page.
        left_out: tasks of the folders that are not on the page, for they have no goals.
    """

    fit: SweepFit
    domains: Mapping[str, str]
    runs: int
    command: str = ""
    left_out: Sequence[str] = ()

    @property
    def pairs(self) -> pd.DataFrame:
        """Goals with both batch sizes known; see `rl_scaling.analysis.pairs_of`."""
        return pairs_of(self.fit.fits, self.domains)

    @property
    def confidence(self) -> float:
        """Of all intervals."""
        return float(self.fit.fits["confidence"].iloc[0])

    def agreements(self) -> dict[str, Agreement]:
        """Of all domains together, without the task that is farthest off, and of each domain that has pairs."""
        pairs = self.pairs
        parts = {name: pairs[pairs["domain"] == name] for name in DOMAINS}
        kept = {name: part for name, part in parts.items() if len(part)}
        farthest = self.farthest()
        without = {f"All but {farthest.task}": farthest.without} if farthest else {}
        everything = {_ALL: agreement(pairs, confidence=self.confidence)}
        return everything | without | {name: agreement(p, confidence=self.confidence) for name, p in kept.items()}

    def farthest(self) -> Farthest | None:
        """The task farthest from the diagonal; None with fewer than three tasks."""
        pairs = self.pairs
        ratios = pairs["critical_batch"].astype(float) / pairs["noise_scale_mean"].astype(float)
        each = ratios.map(math.log).groupby(pairs["task"]).mean()
        if len(each) < FEWEST_TASKS:
            return None
        task = str(each.abs().idxmax())
        rest = agreement(pairs[pairs["task"] != task], confidence=self.confidence)
        return Farthest(task, math.exp(each[task]), rest)


def overview_figures(overview: Overview) -> list[Figure]:
    """The charts of the first part."""
    figure = agreement_figure(overview)
    return [] if figure is None else [figure]


def overview_html(overview: Overview, identity: str, figures: Sequence[Html]) -> Html:
    """Answer, charts and tables of the first part; `figures` is the markup of `overview_figures`."""
    found = overview.agreements()
    explained = tag(
        "p",
        "Every point of the chart is a goal of one task. B",
        tag("sub", "crit"),
        " comes from a sweep over batch sizes: the turn of the fitted curve of examples against updates. B",
        tag("sub", "simple"),
        " is measured while the best runs of that sweep train and averaged over their way to the goal: one run would "
        "do. Were the one as good as the other, all points would lie on the diagonal.",
    )
    return tag(
        "section",
        tag("div", tag("h2", OVERVIEW), class_="heading"),
        answer(found, overview.farthest()),
        explained,
        _left_out(overview.left_out),
        tag("div", *figures, class_="grid"),
        tag("h3", "How well one predicts the other"),
        tag("div", agreement_table(found, overview.fit.fits), class_="card"),
        tag("h3", "Early and late in training, beside published values"),
        tag("div", scales_table(scales(overview.fit.fits, overview.domains)), class_="card"),
        id=identity,
    )


def _left_out(tasks: Sequence[str]) -> Html:
    if not tasks:
        return Html("")
    summary = tag("summary", f"Not on this page, for want of goals: {count_of(len(tasks), 'task')}")
    words = [", ".join(tasks), ". Runs of a fixed budget are what ", tag("code", "rl-scaling budgets"), " reads."]
    return tag("details", summary, tag("p", *words, class_="soft"))


def answer(found: Mapping[str, Agreement], farthest: Farthest | None = None) -> Html:
    """The question of the page, answered in a few sentences with numbers.

    Args:
        found: what `Overview.agreements` returns.
        farthest: what `Overview.farthest` returns.
    """
    everything = found[_ALL]
    if not everything.pairs:
        words: list[object] = ["No task has both a critical batch size and a noise scale yet; the parts below say why."]
        return tag("p", *words, class_="verdict")
    words = [
        tag("strong", _in_words(everything, farthest), " "),
        "Over ",
        f"{count_of(everything.pairs, 'goal')} of {count_of(everything.tasks, 'task')}, the noise scale of the "
        "best runs predicts the critical batch size within a typical factor of ",
        f"{number(everything.factor.value, 2)}{_interval(everything.factor)}; the critical batch size is "
        f"{number(everything.bias.value, 2)} times it in the mean{_interval(everything.bias)}; the correlation "
        f"of the logarithms: {number(everything.correlation.value, 2)}{_interval(everything.correlation)}.",
    ]
    each = [f"{name}: {number(one.factor.value, 2)}" for name, one in found.items() if name in DOMAINS]
    if len(each) > 1:
        words.append(f" By domain the typical factor is: {', '.join(each)}.")
    if farthest is not None:
        words.append(
            f" Farthest off is {farthest.task}, whose critical batch size is {number(farthest.bias, 2)} times its "
            f"noise scale; without it the typical factor is {number(farthest.without.factor.value, 2)}"
            f"{_interval(farthest.without.factor)}."
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


def agreement_table(found: Mapping[str, Agreement], fits: pd.DataFrame) -> Html:
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
        [name, one.pairs, one.tasks, *(_cell(estimate) for estimate in (one.correlation, one.factor, one.bias))]
        for name, one in found.items()
    ]
    note = (
        f"In brackets: {percent(fits)} intervals from a bootstrap over tasks, given where there are three or more. The "
        "typical factor is the exponential of the root mean square of log(B_crit / B_simple)."
    )
    return join([table(heads, rows, words=[0]), tag("p", note, class_="soft")])


def _cell(estimate: Estimate) -> str:
    return f"{number(estimate.value, 2)}{_interval(estimate)}" if math.isfinite(estimate.value) else DASH


def agreement_figure(overview: Overview) -> Figure | None:
    """B_crit against B_simple of every goal, and the published pairs; None where no pair was measured."""
    pairs = overview.pairs
    if pairs.empty:
        return None
    renamed = {f"noise_scale_mean{end}": f"noise_scale{end}" for end in ("", "_low", "_high")}
    measured = pairs.drop(columns=[*renamed.values()]).rename(columns=renamed)
    # A loss and a score are told apart by their task: the goal alone is shown as it is written.
    measured = measured.assign(goal=measured["goal"].map("{:g}".format))[_COLUMNS]
    published = published_pairs().assign(domain=PUBLISHED, goal="")[_COLUMNS]
    both = pd.concat([measured, published], ignore_index=True)
    domains = [name for name in DOMAINS if name in set(measured["domain"])]
    caption = (
        f"Measured here, {count_of(len(measured), 'goal')} from {count_of(overview.runs, 'run')}; bars are "
        f"{percent(overview.fit.fits)} intervals, goals in which either is unknown to a factor of 100 are left out. "
        f"Triangles: {SOURCE}, ranges as bars. Solid line: the two are equal; dotted: a factor of 3 off. "
        + (f"Made with {overview.command}." if overview.command else "")
    )
    return Figure(
        "critical-batch-against-noise-scale",
        "Critical batch size against noise scale, all domains",
        caption.strip(),
        _chart(both, domains, tables := Tables()),
        tables,
        wide=True,
    )


def _chart(both: pd.DataFrame, domains: Sequence[str], tables: Tables) -> alt.LayerChart | alt.FacetChart:
    ends = pd.concat([both[f"{name}{end}"] for name in _FIELDS for end in ("", "_low", "_high")])
    x = log_axis(alt.X, "noise_scale", "mean noise scale (examples, frames or tokens)", ends)
    y = log_axis(alt.Y, "critical_batch", "critical batch size (in the same unit)", ends)
    names = [*domains, PUBLISHED]
    key = legend("", entry_width=190)
    place = [DOMAINS.index(name) for name in domains]
    colours = [*(series_colours(len(DOMAINS))[i] for i in place), "var(--ink-soft)"]
    shapes = [*(SERIES_SHAPES[i] for i in place), "triangle-up"]
    colour = alt.Color("domain:N", scale=alt.Scale(domain=names, range=colours), legend=key)
    shape = alt.Shape("domain:N", scale=alt.Scale(domain=names, range=shapes), legend=key)
    data = alt.Chart(tables.add(both, _COLUMNS)).encode(x=x, y=y, color=colour, tooltip=_tooltip())
    bars = data.mark_rule(opacity=0.35, strokeWidth=1.3, clip=True)
    published = alt.datum.domain == PUBLISHED
    labels = both[both["domain"] == PUBLISHED]
    text = alt.Chart(tables.add(labels, ["task", *_FIELDS])).mark_text(
        align="center", dy=-11, fontSize=10.5, color="var(--ink-soft)", tooltip=False
    )
    return alt.layer(
        *_diagonals(ends, tables),
        bars.encode(x="noise_scale_low:Q", x2="noise_scale_high:Q"),
        bars.encode(y="critical_batch_low:Q", y2="critical_batch_high:Q"),
        data.mark_point(size=70, filled=True, opacity=0.9).encode(shape=shape).transform_filter(~published),
        data.mark_point(size=70, filled=False, strokeWidth=1.6, opacity=1)
        .encode(shape=shape)
        .transform_filter(published),
        text.encode(x="noise_scale:Q", y="critical_batch:Q", text="task:N"),
    )


def _tooltip() -> list[alt.Tooltip]:
    titles = {"noise_scale": "mean noise scale", "critical_batch": "critical batch size"}
    ends = {"": "", "_low": ", from", "_high": ", to"}
    return [
        *(alt.Tooltip(f"{name}:N") for name in ("domain", "task", "goal", "unit")),
        *(
            alt.Tooltip(f"{name}{end}:Q", title=f"{title}{word}", format=",.3~r")
            for name, title in titles.items()
            for end, word in ends.items()
        ),
    ]


def _diagonals(ends: pd.Series, tables: Tables) -> list[alt.Chart]:
    """Where B_crit is B_simple, and three times more or less."""
    known = ends[(ends > 0) & (ends < math.inf)].astype(float)
    across = [known.min() / 10, known.max() * 10]
    lines = []
    for factor, dash in ((1.0, [1, 0]), (3.0, [2, 3]), (1 / 3, [2, 3])):
        line = pd.DataFrame({"noise_scale": across, "critical_batch": [factor * value for value in across]})
        chart = alt.Chart(tables.add(line, list(_FIELDS))).mark_line(
            color="var(--guide)", strokeWidth=1.2, strokeDash=dash, clip=True, tooltip=False
        )
        lines.append(chart.encode(x="noise_scale:Q", y="critical_batch:Q"))
    return lines
