"""`rl-scaling temperature`: does the noise scale follow the learning rate and the batch size?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table

from rl_scaling.cli.options import Count, as_json, json_estimate, print_json, print_line, print_table, say, unset
from rl_scaling.validation.settings import WHATS, TemperatureSettings, What

if TYPE_CHECKING:
    from rl_scaling.validation.temperature import Phase, TemperatureRun


@dataclass(frozen=True)
class Temperature(TemperatureSettings):
    """Change the temperature of a training (learning rate / batch size) and see the noise scale follow.

    A small network on scikit-learn's digits, trained by SGD until its loss is flat; then the temperature is lowered by
    a factor and raised again. About two minutes on one core for the three ways.
    """

    pretrain_updates: Count = TemperatureSettings.pretrain_updates
    phase_updates: Count = TemperatureSettings.phase_updates
    what: tuple[What, ...] = WHATS
    """What is changed to lower the temperature, one run each. both: each by the root of the factor."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Folder for the chart (PNG and SVG) and the numbers (temperature.json)."""
    json: bool = False
    """Print the numbers as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.validation.temperature import temperature_runs

        asked = {field.name: getattr(self, field.name) for field in dataclasses.fields(TemperatureSettings)}
        runs = list(temperature_runs(TemperatureSettings(**asked), tuple(dict.fromkeys(self.what)), say))
        numbers = {"settings": asked, "runs": [_row(run) for run in runs]}
        if self.out is not None:
            _write(runs, numbers, self.out)
        if self.json:
            print_json(numbers)
        else:
            _print(runs)
        return 0


def _row(run: TemperatureRun) -> dict[str, Any]:
    return {
        "what": run.what,
        "phases": [_phase_row(phase) for phase in run.phases],
        "expected_ratio": run.expected,
        "ratio": json_estimate(run.ratio),
        "ratio_exact": run.exact_ratio,
        "return_ratio": json_estimate(run.return_ratio),
    }


def _phase_row(phase: Phase) -> dict[str, Any]:
    found = phase.estimate
    of_phase = {name: getattr(phase, name) for name in ("learning_rate", "batch_size", "temperature", "loss")}
    names = ("b_simple", "low", "high", "resolved", "grad_sq_norm", "trace_cov")
    measured = {name: getattr(found, name) for name in names} | {"measurements": found.steps}
    return as_json({"phase": phase.name, **of_phase, **measured, "b_simple_exact": phase.b_simple_exact})


def _print(runs: list[TemperatureRun]) -> None:
    table = Table(
        "changed", "phase", "learning rate", "batch", "loss", "noise scale (examples)", "exact |G|²", box=None
    )
    for run in runs:
        for phase in run.phases:
            numbers = f"{phase.learning_rate:.4g}", f"{phase.batch_size:,}", f"{phase.loss:.3f}"
            table.add_row(run.what, phase.name, *numbers, str(phase.estimate), f"{phase.b_simple_exact:,.0f}")
    print_table(table)
    for run in runs:
        rise = f"1/T rose by {run.expected:.3g}, the noise scale by {run.ratio}"
        exact = f"{run.exact_ratio:.3g} with exact |G|²"
        print_line(f"{run.what}: {rise}; {exact}; after over before: {run.return_ratio} (95 % intervals)")


def _write(runs: list[TemperatureRun], numbers: dict[str, Any], folder: Path) -> None:
    import json

    from rl_scaling.report.page import export_figure
    from rl_scaling.validation.temperature import temperature_figure

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "temperature.json").write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    for path in export_figure(temperature_figure(runs), folder / "temperature"):
        say(f"wrote {path}")
