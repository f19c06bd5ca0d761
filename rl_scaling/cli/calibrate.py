"""`rl-scaling calibrate`: the estimators of the noise scale against known answers.

It prints accuracy in every setting, the usual recipes beside it, and a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated

from rich.progress import Progress
from rich.table import Table

from rl_scaling.cli.options import Count, as_json, at_least, console, print_json, print_line, print_table, unset
from rl_scaling.validation.settings import (
    FAST_CALIBRATION,
    LARGEST_BIAS,
    CalibrationPlan,
    Row,
    bias_is_met,
    coverage_is_met,
    is_resolved,
)

_RECIPES = {
    "b_simple": "here",
    "clamped": "clamped",
    "mean_of_ratios": "mean of ratios",
    "shuffled_frames": "shuffled frames",
    "time_step_groups": "time steps",
}
# Batch sizes, over the noise scale, at which the recipes are compared.
_RECIPES_AT = (0.1, 1.0)
_REPEATS = f"Series in each setting; {CalibrationPlan.repeats:,}, or {FAST_CALIBRATION.repeats:,} with --fast."


@dataclass(frozen=True)
class Calibrate:
    """Run the estimators on gradients whose noise scale is known; print bias, coverage and the part left unresolved."""

    fast: bool = False
    """Fewer settings and repeats: seconds instead of minutes."""
    repeats: Annotated[Count | None, unset("COUNT", help=_REPEATS)] = None
    measurements: Count = CalibrationPlan.measurements
    """Measurements in each series."""
    seed: int = CalibrationPlan.seed
    """Seed of all randomness."""
    workers: int = 0
    """Processes; 0: every core this process may use. The result does not depend on it."""
    json: bool = False
    """Print the rows as JSON on stdout."""

    def run(self) -> int:
        at_least(2, repeats=2 if self.repeats is None else self.repeats, measurements=self.measurements)
        at_least(0, seed=self.seed, workers=self.workers)
        from rl_scaling.envs import available_cpus
        from rl_scaling.validation.calibration import calibrate

        plan = FAST_CALIBRATION if self.fast else CalibrationPlan()
        plan = replace(plan, seed=self.seed, measurements=self.measurements, repeats=self.repeats or plan.repeats)
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("simulating", total=None)
            rows = calibrate(
                plan,
                workers=self.workers or available_cpus(),
                progress=lambda done, of: bar.update(task, completed=done, total=of),
            )
        if self.json:
            print_json([as_json(row) for row in rows])
        else:
            _print_calibration(plan, rows)
        return 0


def _print_calibration(plan: CalibrationPlan, rows: Sequence[Row]) -> None:
    """The tables, on stdout."""
    from rl_scaling.validation.calibration_problems import PROBLEMS

    print_line(f"{plan.repeats:,} series of {plan.measurements:,} measurements in each setting, seed {plan.seed}.")
    print_line("Each cell: bias in % of the truth / coverage of the 95 % interval in %; * where an aim is missed.")
    print_line("Where 1 in 100 series or more are unresolved: coverage of intervals and bounds (unresolved).\n")
    for (name, correlation), part in groupby(rows, key=lambda row: (str(row["problem"]), _correlation(row))):
        print_line(f"{name}{f', correlation {correlation}' if correlation else ''}:")
        print_line(f"  {PROBLEMS[name].description}")
        print_table(_accuracy(plan, part))
    at = [ratio for ratio in _RECIPES_AT if ratio in plan.batch_over_noise_scale]
    groups = 8 if 8 in plan.groups else plan.groups[0]
    print_line(f"What usual recipes answer, over the truth, at {groups} groups:")
    print_table(_recipes([r for r in rows if r["groups"] == groups and r["batch_over_noise_scale"] in at]))
    for line in _verdict(rows):
        print_line(line)


def _correlation(row: Row) -> str:
    """The correlation of the frames of one environment; empty where a problem has none."""
    return str(row["correlation"]) if math.isfinite(float(row["time_step_groups"])) else ""


def _accuracy(plan: CalibrationPlan, rows: Iterable[Row]) -> Table:
    table = Table("  groups", *(f"B/B_noise {ratio:g}" for ratio in plan.batch_over_noise_scale), box=None)
    for groups, part in groupby(rows, key=lambda row: row["groups"]):
        table.add_row(f"  {groups}", *(_cell(row) for row in part))
    return table


def _cell(row: Row) -> str:
    coverage = f"{100 * float(row['coverage']):.1f}"
    if not is_resolved(row):
        return f"{coverage} ({100 * float(row['unresolved']):.0f} %)"
    met = bias_is_met(row) and coverage_is_met(row)
    return f"{100 * float(row['bias']):+.1f} / {coverage}{'' if met else ' *'}"


def _recipes(rows: Sequence[Row]) -> Table:
    table = Table("  problem", "correlation", "B/B_noise", *_RECIPES.values(), box=None)
    for row in rows:
        answers = dict(row) | {"b_simple": 1 + float(row["bias"]) if is_resolved(row) else math.nan}
        texts = (f"{float(answers[name]):.2f}" if math.isfinite(float(answers[name])) else "-" for name in _RECIPES)
        table.add_row(f"  {row['problem']}", _correlation(row) or "-", f"{row['batch_over_noise_scale']:g}", *texts)
    return table


def _verdict(rows: Sequence[Row]) -> list[str]:
    known = [row for row in rows if is_resolved(row)]
    lines = [f"\n{len(known)} of {len(rows)} settings are resolved (fewer than 1 in 100 series are not). Of these"]
    if not known:
        return lines[:1]
    biases = [100 * float(row["bias"]) for row in known]
    plain = sum(abs(float(row["plain_ratio_bias"])) < LARGEST_BIAS for row in known)
    coverages = [100 * float(row["coverage"]) for row in known]
    return [
        *lines,
        f"  {sum(map(bias_is_met, known))} have a bias below 2 % ({plain} without the correction of the ratio);"
        f" biases are {min(biases):+.1f} to {max(biases):+.1f} %",
        f"  {sum(map(coverage_is_met, known))} have a coverage of 93 to 97 %;"
        f" coverages are {min(coverages):.1f} to {max(coverages):.1f} %",
    ]
