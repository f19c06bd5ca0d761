"""Several algorithms on one problem: the goals that they have in common."""

from __future__ import annotations

import altair as alt

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.views import goal_of_most_tasks, goals_in_common
from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.theme import Words, goal_choice, legend, log_axis, named_colour, series_colours, tooltips


@chart("task")
def algorithms_figure(view: TaskView) -> Figure | None:
    """The fronts of all tasks of one problem, shown with the last of them; None where it has one task."""
    shared = goals_in_common(view.found.fit.fronts, view.found.problems)
    fronts = next((part for part in shared if part["task"].max() == view.task), None)
    if fronts is None:
        return None
    words, tables = Words(view.measure), Tables()
    unit = words.unit
    tasks, goals = sorted(fronts["task"].unique()), sorted(float(goal) for goal in fronts["goal"].unique())
    start = goal_of_most_tasks(fronts, words.direction)
    choice = goal_choice(goals, start, words)
    columns = ("task", "goal", "batch_size", "learning_rate", "updates", "examples")
    data = tables.add(fronts, columns)
    base = alt.Chart(data).encode(
        x=log_axis(alt.X, "updates", "updates to the goal (optimiser steps, log scale)", fronts["updates"]),
        y=log_axis(alt.Y, "examples", f"{unit} to the goal ({words.log_scale})", fronts["examples"]),
        color=named_colour("task", tasks, series_colours(len(tasks)), legend("", entry_width=420)),
        tooltip=tooltips(words, fronts, *columns, learning_rate="best learning rate"),
    )
    lines = base.mark_line(strokeWidth=1.8).encode(order="batch_size:Q").transform_filter("datum.goal == goal")
    points = base.mark_point(size=60, filled=True, opacity=1).transform_filter("datum.goal == goal")
    return Figure(
        "algorithms",
        "The same goal, by algorithm",
        f"Points are batch sizes at their best learning rates, for one goal; the chart starts with {start:g}. "
        f"{unit.capitalize()} are counted once, however often an algorithm uses them.",
        alt.layer(lines, points).add_params(choice),
        tables,
        True,
    )
