"""What `rl-scaling advise` found, as plain data and as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from rl_scaling.analysis.advise import KEPT_WEIGHTS, TRAINING
from rl_scaling.analysis.predictions import (
    TRAINED,
    PredictedTask,
    PredictionError,
    leave_one_out,
    shipped,
    summary,
)
from rl_scaling.cli.options import as_json, print_line, print_table
from rl_scaling.estimates import Estimate, columns_of, number

if TYPE_CHECKING:
    import pandas as pd

    from rl_scaling.analysis.advise import ChosenRun
    from rl_scaling.analysis.costs import Cost, CostModel


def advice_as_json(chosen: ChosenRun, model: CostModel, runs: pd.DataFrame, *, horizon: float) -> dict[str, Any]:
    """Everything: the run, S_min, E_min, B_crit, the line of times, choices, the curve, doubts, and what was measured.

    Numbers with an interval are {"value", "low", "high"}; what is not known is null. An environment count is there
    where the runs have environments.
    """
    from rl_scaling.analysis.advise import beside_sweep, concerns
    from rl_scaling.analysis.costs import curve

    steps, line = chosen.run["rollout_steps"], model.throughput
    measured = beside_sweep(chosen, line, runs, confidence=model.confidence, horizon=horizon, error=model.error)
    choices = [
        {
            "name": choice.name,
            **_cost(choice.cost, steps),
            "batch_size_interval": _estimate(choice.batch_size),
            "note": choice.note,
        }
        for choice in model.choices()
    ]
    times = None
    if line is not None:
        times = {
            "overhead_seconds": line.overhead,
            f"seconds_per_{chosen.run['unit'].removesuffix('s')}": line.per_example,
            "batch_sizes": line.batch.tolist(),
            "seconds_per_update": line.seconds.tolist(),
        }
    return {
        "run": as_json(chosen.run),
        "source": chosen.source_of(chosen.run["goal"]),
        "confidence": model.confidence,
        "steps_min": _estimate(model.steps_min),
        "examples_min": _estimate(model.examples_min),
        "critical_batch": _estimate(model.critical_batch),
        "correction": _correction(model),
        "throughput": times,
        "choices": choices,
        "curve": [_cost(cost, steps) for cost in curve(model, steps or 1)],
        "concerns": concerns(model, chosen),
        "measured": [as_json({str(name): value for name, value in row.items()}) for row in measured.to_dict("records")],
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return as_json({end: getattr(estimate, end) for end in _ENDS})


def _cost(cost: Cost, steps: int) -> dict[str, Any]:
    environments = {"num_envs": max(1, round(cost.batch_size / steps))} if steps else {}
    named = {name: _estimate(getattr(cost, name)) for name in ("updates", "examples", "hours")}
    return environments | {"batch_size": cost.batch_size} | named


def show_advice(found: dict[str, Any]) -> None:
    """Print it for people."""
    run = found["run"]
    unit, steps = run["unit"], run["rollout_steps"]
    target = f"to a {run['quantity']} of {run['goal']:g}" if run["goals"] else "to where the run ended"
    print_line(
        f"{run['task']}, run {run['run_id']}: batch {run['batch_size']:,} {unit}, learning rate "
        f"{run['learning_rate']:g}; {run['updates']:,.0f} updates and {run['examples']:,.0f} {unit} {target}."
    )
    times, kept = found["throughput"], _SOURCES[found["source"]]
    names = ("steps_min", "examples_min", "critical_batch")
    steps_min, examples_min, critical_batch = (_text(found[name]) for name in names)
    print_line(
        f"By its noise scale{kept}: S_min {steps_min} updates, E_min {examples_min} {unit}, "
        f"B_crit {critical_batch} {unit} ({100 * found['confidence']:g} % intervals)."
    )
    if times:
        per = 1000 * times[f"seconds_per_{unit.removesuffix('s')}"]
        print_line(f"An update takes {1000 * times['overhead_seconds']:.3g} ms + {per:.3g} ms for each of the {unit}.")
    print_table(_choices(found, unit, steps))
    print_table(_curve(found, unit, steps))
    if found["measured"]:
        print_table(_measured(found, unit))
        print_table(_turns(found, unit))
    for concern in found["concerns"]:
        print_line(f"Do not trust this blindly: {concern}.")
    print_line(_about_the_intervals(found["correction"]))


def _correction(model: CostModel) -> dict[str, Any] | None:
    """What was taken from other tasks; None where nothing was."""
    error = model.error
    if not isinstance(error, PredictionError):
        return None
    names = ("kind", "tasks", "bias", "factor")
    return {name: getattr(error, name) for name in names} | {"left_out": as_json(shipped()["summary"][TRAINED])}


def _about_the_intervals(correction: dict[str, Any] | None) -> str:
    if correction is None:
        return (
            "The intervals are those of the measurements. That B_simple stands for B_noise is not in them: how far off "
            "predictions were on other tasks is in docs/advise.md."
        )
    counts = correction["left_out"]
    return (
        f"On {correction['tasks']} {correction['kind']} B_crit was {correction['bias']:.2g} times what one run "
        f"predicts: that is corrected here, and the intervals have its scatter in them, a factor of "
        f"{correction['factor']:.2g}. With each of {counts['tasks']} tasks left out in turn, {counts['within']} swept "
        f"values lay within a factor of 2 of what the others predict and {counts['held']} inside the interval "
        "(docs/advise.md). --no-correct leaves it out."
    )


def tasks_as_json(known: Sequence[PredictedTask], confidence: float) -> dict[str, Any]:
    """The tasks, what each is with the correction by the others, and counts: what the package ships of results/."""
    table = leave_one_out(known, confidence=confidence)
    rows = [as_json({str(name): value for name, value in row.items()}) for row in table.to_dict("records")]
    counts = {name: as_json(group) for name, group in summary(table).items()}
    return {"confidence": confidence, "tasks": [one.to_plain() for one in known], "left_out": rows, "summary": counts}


def show_tasks(known: Sequence[PredictedTask], confidence: float) -> None:
    """Print it for people."""
    found = leave_one_out(known, confidence=confidence)
    heads = ("task", "goal", "B_crit swept", "predicted by\none run", "corrected by\nother tasks", "swept /\ncorrected")
    table = Table(*heads, "inside", "others", box=None)
    for row in found.to_dict("records"):
        estimates = (Estimate.of(row, name).text(whole=True) for name in ("swept", "predicted", "corrected"))
        factor = number(row["factor"], 2) + ("" if row["within"] or math.isnan(row["factor"]) else " (!)")
        others = f"{row['others']} {row['kind']}" if row["others"] else "too few"
        table.add_row(str(row["task"]), f"{row['goal']:g}", *estimates, factor, "yes" if row["held"] else "no", others)
    print_table(table)
    for name, counts in summary(found).items():
        bias = Estimate.of(counts, "bias").text(2)
        print_line(
            f"{name}, {counts['tasks']} tasks: B_crit / prediction {bias}, typically a factor of "
            f"{number(counts['typical_factor'], 2)} off. Within a factor of 2: {counts['within_before']} as predicted, "
            f"{counts['within']} corrected. Inside the {100 * confidence:g} % interval: {counts['held_before']} as "
            f"predicted, {counts['held']} corrected."
        )


def _choices(found: dict[str, Any], unit: str, steps: int) -> Table:
    table = Table("", *(["environments"] if steps else []), f"batch ({unit})", "updates", unit, "hours", "", box=None)
    for choice in found["choices"]:
        interval = choice["batch_size_interval"]
        environments = {end: size and max(1, round(size / steps)) for end, size in interval.items()} if steps else {}
        first = [_text(environments)] if steps else []
        table.add_row(choice["name"], *first, _text(interval), *_costs(choice), choice["note"])
    return table


def _curve(found: dict[str, Any], unit: str, steps: int) -> Table:
    table = Table(*(["environments"] if steps else []), f"batch ({unit})", "updates", unit, "hours", box=None)
    for cost in found["curve"]:
        environments = [f"{cost['num_envs']:,}"] if steps else []
        table.add_row(*environments, f"{cost['batch_size']:,.0f}", *_costs(cost))
    return table


def _costs(cost: dict[str, Any]) -> list[str]:
    return [_text(cost[name]) for name in ("updates", "examples", "hours")]


def _measured(found: dict[str, Any], unit: str) -> Table:
    """Every batch size of the sweep at the hardest goal that both have."""
    goal = found["measured"][-1]["goal"]
    table = Table(
        *(f"to {goal:g}: batch ({unit})", "updates\nmeasured", "updates\npredicted", "predicted /\nmeasured"),
        *("hours\nmeasured", "hours\npredicted"),
        box=None,
    )
    for row in found["measured"]:
        if row["goal"] == goal:
            table.add_row(
                f"{row['batch_size']:,}" + (" (the run's)" if row["own"] else ""),
                number(row["updates"], whole=True),
                _row(row, "predicted_updates"),
                f"{row['ratio']:.2f}",
                "" if row["hours"] is None else number(row["hours"], whole=True),
                _row(row, "predicted_hours"),
            )
    return table


def _turns(found: dict[str, Any], unit: str) -> Table:
    """B_crit of every goal, as the sweep's front has it and as the run's noise scale predicts it."""
    table = Table("goal", f"B_crit fitted to the sweep\n({unit})", f"B_crit predicted\n({unit})", box=None)
    for row in {row["goal"]: row for row in found["measured"]}.values():
        fitted, predicted = _row(row, "critical_batch"), _row(row, "predicted_critical_batch")
        table.add_row(f"{row['goal']:g}", fitted, predicted)
    return table


def _row(row: Mapping[str, float | None], name: str) -> str:
    return _text({end: row[column] for end, column in zip(_ENDS, columns_of(name), strict=True)})


def _text(plain: Mapping[str, float | None]) -> str:
    """An estimate out of the plain data; one that is open above is shown as a lower bound."""
    value, low, high = (math.nan if (end := plain[name]) is None else end for name in _ENDS)
    known = Estimate(math.nan, low, math.inf) if math.isnan(high) else Estimate(value, low, high)
    return known.text(whole=True)


_ENDS = ("value", "low", "high")
_SOURCES = {TRAINING: "", KEPT_WEIGHTS: ", measured with the weights kept"}
