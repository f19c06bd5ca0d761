"""Learning rates: the best of each batch size beside A.3 of McCandlish et al. 2018, and what each of them led to."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd

from rl_scaling.analysis import TaskView
from rl_scaling.analysis.learning_rates import curve_of_hardest_goal, final_values_by_rate, rates_to_goals
from rl_scaling.estimates import count_of
from rl_scaling.report.charts.learning_curves import batch_colour, value_axis
from rl_scaling.report.figures import Figure, Tables, chart
from rl_scaling.report.theme import Words, dimmed, goal_choice, log_axis, ordered_colour, tooltips

_TOO_SCATTERED = math.log(2)


@chart("task")
def best_rate_figure(view: TaskView) -> Figure | None:
    """Best learning rate against batch size for each goal, with A.3 of the hardest goal; None without a front."""
    front, words, tables = view.own.fronts, Words(view.measure), Tables()
    if front.empty:
        return None
    goals = sorted(front["goal"].unique(), reverse=words.direction == "min")
    x = log_axis(alt.X, "batch_size", f"batch size ({words.unit} per update, log scale)", front["batch_size"])
    y = log_axis(alt.Y, "learning_rate", "best learning rate (log scale)", front["learning_rate"], format=".1~e")
    columns = ("goal", "batch_size", "learning_rate", "setting", "at_edge")
    tooltip = tooltips(words, front, *columns, learning_rate="best learning rate")
    base = alt.Chart(tables.add(front, columns)).encode(
        x=x, y=y, color=ordered_colour("goal", goals, words.goal), tooltip=tooltip
    )
    layers = [base.mark_line(strokeWidth=1.5, opacity=0.7).encode(order="batch_size:Q")]
    curve, said = _fitted(view, words, tables)
    layers += [*curve, base.mark_point(size=60, filled=True, opacity=1)]
    edges = int(front["at_edge"].sum())
    caption = (
        f"The learning rate that reached each goal first, from {count_of(len(view.fixed.runs), 'run')}. {said}"
        + (f" {count_of(edges, 'point')} at the edge of the grid: the best rate may lie beyond." if edges else "")
    )
    return Figure("best-learning-rates", "Best learning rate against batch size", caption, alt.layer(*layers), tables)


def _fitted(view: TaskView, words: Words, tables: Tables) -> tuple[list[alt.Chart], str]:
    """The curve of A.3 for the hardest goal that enough batch sizes reached, and the words about it."""
    found = curve_of_hardest_goal(view.own.fronts, view.rate_power, words.direction)
    if found is None:
        return [], ""
    goal, line, curve = found
    if curve.scatter > _TOO_SCATTERED:
        return [], f"The points of the goal {goal:g} follow no curve of A.3 to within a factor of 2."
    drawn = alt.Chart(tables.add(line, ["batch_size", "learning_rate"])).mark_line(
        color="var(--ink)", strokeWidth=1.6, strokeDash=[6, 4], tooltip=False
    )
    exponent = "" if curve.power == 1 else f"^{curve.power:g}"
    bend = f"it bends at {curve.turn.text(2)} {words.unit}"
    if curve.turn.value == math.inf:
        bend = "no bend is seen up to the largest batch size"
    elif curve.turn.value == 0:
        bend = "the best rate does not rise with the batch size"
    return [drawn.encode(x="batch_size:Q", y="learning_rate:Q")], (
        f"Dashed: rate = limit / (1 + turn / B){exponent} (A.3) for the goal {goal:g}; {bend}."
    )


def _rate_lines(table: pd.DataFrame, y: alt.Y, words: Words, tooltip: list[alt.Tooltip], tables: Tables) -> alt.Chart:
    """One line per batch size over the learning rates in `table`."""
    chosen = alt.selection_point(name="chosen", fields=["batch_size"], bind="legend")
    x = log_axis(alt.X, "learning_rate", "learning rate (log scale)", table["learning_rate"], format=".1~e")
    return (
        alt.Chart(tables.add(table, table.columns.tolist()))
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=55, filled=True))
        .encode(
            x=x,
            y=y,
            color=batch_colour(table["batch_size"], words),
            opacity=dimmed(chosen, 1.0),
            tooltip=tooltip,
        )
        .add_params(chosen)
    )


@chart("task", tables=lambda overview: {"learning-rates": overview.fit.learning_rates})
def rate_to_goal_figure(view: TaskView) -> Figure | None:
    """Updates to a goal against the learning rate, with a choice of goals; None where no goal was reached."""
    found = rates_to_goals(view.own.learning_rates)
    if found is None:
        return None
    (start, table), words, tables = found, Words(view.measure), Tables()
    goals = sorted(float(g) for g in table["goal"].unique())
    choice = goal_choice(goals, start, words)
    y = log_axis(alt.Y, "updates", "updates to the goal (log scale)", table["updates"])
    columns = ("batch_size", "learning_rate", "setting", "goal", "updates")
    tooltip = tooltips(words, table, *columns, updates="updates to it")
    lines = _rate_lines(table, y, words, tooltip, tables).transform_filter("datum.goal == goal").add_params(choice)
    caption = (
        f"Lower is faster; a lowest point at the end of a line asks for a wider grid. The chart starts with the goal "
        f"{start:g}. Rates without a point did not reach the goal. From {count_of(len(view.fixed.runs), 'run')}."
    )
    return Figure("learning-rates-to-goal", "Learning rates: updates to a goal", caption, lines, tables)


@chart("task")
def final_value_figure(view: TaskView) -> Figure | None:
    """Smoothed score, or loss, at the end of the runs against the learning rate; None where no run has one."""
    words, tables = Words(view.measure), Tables()
    scored = view.fixed.runs.dropna(subset=["final_score"])
    if scored.empty or scored["setting"].astype(bool).any():  # with a second setting tuned there is no single line
        return None
    means = final_values_by_rate(scored, words.direction)
    columns = ("batch_size", "learning_rate", "setting", "score", "seeds", "examples")
    tooltip = tooltips(words, means, *columns, seeds="runs averaged", examples="after {unit}")
    y = value_axis("score", f"{words.curve} at the end", means["score"], words)
    caption = (
        f"Mean over seeds of {count_of(len(scored), 'run')}; runs that stopped early count with their last "
        f"{words.quantity}."
    )
    lines = _rate_lines(means, y, words, tooltip, tables)
    name = f"learning-rates-final-{words.quantity.replace(' ', '-')}"
    return Figure(name, f"Learning rates: {words.quantity} at the end", caption, lines, tables)
