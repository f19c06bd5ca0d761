"""One named part of the report: runs, their fits and the words that say what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.views import Findings
from rl_scaling.estimates import count_of, duration, number
from rl_scaling.report.figures import Figure, draw_all
from rl_scaling.report.html import Html, join, tag
from rl_scaling.report.tables import (
    STATUS_WORDS,
    compared_table,
    facts,
    frozen_table,
    gamma_table,
    goals_table,
    provenance_facts,
    run_list,
    throughput_table,
    verdict,
)
from rl_scaling.report.theme import Words, words_of


@dataclass(frozen=True, kw_only=True)
class Section(Findings):
    """A named part of the page with its own runs, so that live and shipped measurements are never mixed.

    Attributes:
        heading: what this part is called.
        explanation: a few sentences on where the runs come from and what they can show.
        badge: a word or two beside the heading, such as "measured just now".
        command: the command that repeats this part.
        notes: remarks, each one a paragraph.
        provenance: versions, commit and machine: one mapping per run (`RunInfo.provenance`), or one for all.
    """

    heading: str
    explanation: str = ""
    badge: str = ""
    command: str = ""
    notes: Sequence[str] = ()
    provenance: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class TaskPart:
    """One task of a section, with its figures drawn."""

    view: TaskView
    figures: list[Figure]


def task_parts(section: Section) -> list[TaskPart]:
    """The section taken apart by task, with its figures drawn."""
    return [TaskPart(view, _fill_rows(draw_all("task", view))) for view in section.tasks()]


def _fill_rows(figures: list[Figure]) -> list[Figure]:
    """Makes the last narrow figure wide where it would stand beside an empty place."""
    narrow = [place for place, figure in enumerate(figures) if not figure.wide]
    if len(narrow) % 2:
        figures[narrow[-1]] = replace(figures[narrow[-1]], wide=True)
    return figures


def _missing(part: TaskPart) -> list[str]:
    """What the page would show but cannot, in words."""
    names = {figure.name for figure in part.figures}
    words = Words(part.view.measure)
    missing = []
    if "pareto-front" not in names:
        missing.append("No Pareto front: no goal was reached.")
    if not part.view.series.runs["noise_measurements"].sum():
        missing.append("No noise scale: it was not measured in these runs.")
    elif f"noise-scale-over-{words.unit}" not in names:
        missing.append("No noise scale over training: no measurement gave an estimate.")
    if not part.view.found.curves:
        missing.append("No learning curves: there are too many runs for one page.")
    elif f"learning-curves-{words.unit}" not in names:
        scored = words.measure.over_episodes
        why = "has finished enough episodes for a smoothed score" if scored else f"has a {words.quantity}"
        missing.append(f"No learning curves: no run {why}.")
    return missing


def _task_html(part: TaskPart, figure_html: list[Html]) -> Html:
    view, own = part.view, part.view.own
    blocks: list[object] = [tag("h3", view.task), verdict(own.fits, view.examples_each)]
    if len(own.fits):
        blocks.append(tag("div", goals_table(own.fits), class_="card"))
    if len(own.adaptive):
        blocks += [tag("h3", "Adaptive batch size"), tag("div", gamma_table(own.adaptive, own.fits), class_="card")]
    if len(own.frozen):
        blocks += [tag("h3", "Noise scale with the weights kept"), tag("div", frozen_table(own.frozen), class_="card")]
    blocks += [tag("p", text, class_="missing soft") for text in _missing(part)]
    blocks.append(tag("div", *figure_html, class_="grid"))
    fixed = view.fixed.runs
    if fixed["examples_per_second"].notna().any():
        blocks += [tag("h3", "Throughput"), tag("div", throughput_table(fixed), class_="card")]
    return join(blocks)


def how_it_was_run(section: Section, runs: pd.DataFrame) -> Html:
    """Command, counts, totals and provenance of a section, and its list of runs."""
    counts = runs["status"].value_counts()
    by_status = ", ".join(f"{int(n):,} {STATUS_WORDS.get(str(name), name)}" for name, n in counts.items())
    pairs: list[tuple[str, object]] = []
    if section.command:
        pairs.append(("Command", tag("pre", section.command)))
    pairs += [
        ("Runs", f"{count_of(len(runs), 'run')}: {by_status}"),
        *(_total(part) for _, part in runs.groupby("unit", sort=False)),
        ("Time", f"{duration(float(runs['wall_seconds'].sum()))} of training, added up over runs"),
        *_smoothing(runs, section.horizon),
        *provenance_facts(section.provenance),
    ]
    notes = [tag("p", note) for note in section.notes]
    return join([tag("h3", "How it was run"), tag("div", *notes, facts(pairs), run_list(runs), class_="card")])


def _total(runs: pd.DataFrame) -> tuple[str, object]:
    unit = words_of(runs).unit
    counted = ", counted as the agent sees them" if unit == "frames" else ""
    return unit.capitalize(), f"{number(float(runs['examples'].sum()), 4)} in total{counted}"


def _smoothing(runs: pd.DataFrame, horizon: float) -> list[tuple[str, object]]:
    if not any(words_of(part).measure.over_episodes for _, part in runs.groupby("quantity")):
        return []
    return [("Smoothing", f"scores are averaged over {horizon:g} finished episodes before they meet a goal")]


def section_html(
    section: Section, identity: str, parts: Sequence[TaskPart], draw: Callable[[Figure, str], Html]
) -> Html:
    """The section as markup; `draw` gives that of a figure, with a command below it."""
    badge = tag("span", section.badge, class_="pill badge") if section.badge else ""
    blocks: list[object] = [tag("div", tag("h2", section.heading), badge, class_="heading")]
    blocks += [tag("p", text) for text in section.explanation.split("\n\n") if text.strip()]
    if not parts:
        blocks.append(tag("p", "There are no runs in this part yet.", class_="verdict"))
        blocks += [tag("p", note) for note in section.notes]
        return tag("section", *blocks, id=identity)
    for part in parts:
        blocks.append(_task_html(part, [draw(figure, section.command) for figure in part.figures]))
    compared = compared_table(section.fit.fits, section.problems)
    if compared is not None:
        blocks += [tag("h3", "Algorithms side by side"), tag("div", compared, class_="card")]
    blocks.append(how_it_was_run(section, pd.concat([part.view.series.runs for part in parts])))
    return tag("section", *blocks, id=identity)
