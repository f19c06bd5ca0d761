"""`rl-scaling temperature`: does the noise scale follow the learning rate and the batch size?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from rl_scaling.cli.options import Count, as_json, print_json, print_line, print_table, say

if TYPE_CHECKING:
    from rl_scaling.validation.experiments.temperature import Phase, Ratio, TemperatureRun


@dataclass(frozen=True)
class Temperature:
    """Change the temperature of a training (learning rate / batch size) and see the noise scale follow.

    A small network on scikit-learn's digits, trained by SGD until its loss is flat; then the temperature is lowered by
    a factor and raised again. About two minutes on one core for the three ways.
    """

    factor: float = 16.0
    """By which the temperature is lowered."""
    what: tuple[Literal["learning-rate", "batch-size", "both"], ...] = ("learning-rate", "batch-size", "both")
    """What is changed for it: one run each. both: each by the root of the factor."""
    learning_rate: float = 0.2
    """Of SGD before and after."""
    batch_size: int = 64
    """Examples per update before and after; eight groups."""
    label_noise: float = 0.3
    """Share of the labels drawn at random, so that the network cannot fit all of them."""
    weight_decay: float = 0.01
    """Coefficient w of w |theta|^2 / 2 in the loss."""
    pretrain_updates: Count = 6_000
    """Updates before the measuring begins."""
    phase_updates: Count = 10_000
    """Updates before, during and after; the first half of each is left to settle."""
    seed: int = 0
    """Of weights and batches."""
    out: Path | None = None
    """Folder for the chart (PNG and SVG) and the numbers (temperature.json)."""
    json: bool = False
    """Print the numbers as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.validation.experiments.temperature import TemperatureSettings, temperature_runs

        settings = TemperatureSettings(
            factor=self.factor,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            label_noise=self.label_noise,
            weight_decay=self.weight_decay,
            pretrain_updates=self.pretrain_updates,
            phase_updates=self.phase_updates,
            seed=self.seed,
        )
        runs = list(temperature_runs(settings, tuple(dict.fromkeys(self.what)), say))
        rows = [_row(run) for run in runs]
        if self.out is not None:
            _write(runs, {"settings": asdict(settings), "runs": rows}, self.out)
        if self.json:
            print_json({"settings": asdict(settings), "runs": rows})
        else:
            _print(runs)
        return 0


def _row(run: TemperatureRun) -> dict[str, Any]:
    return {
        "what": run.what,
        "phases": [_phase_row(phase) for phase in run.phases],
        "expected_ratio": run.expected,
        "ratio": as_json(asdict(run.ratio)),
        "ratio_exact": run.exact_ratio,
        "return_ratio": as_json(asdict(run.return_ratio)),
    }


def _phase_row(phase: Phase) -> dict[str, Any]:
    found = phase.estimate
    return as_json(
        {
            "phase": phase.name,
            "learning_rate": phase.learning_rate,
            "batch_size": phase.batch_size,
            "temperature": phase.temperature,
            "loss": phase.loss,
            "b_simple": found.b_simple,
            "low": found.low,
            "high": found.high,
            "resolved": found.resolved,
            "grad_sq_norm": found.grad_sq_norm,
            "trace_cov": found.trace_cov,
            "measurements": found.steps,
            "b_simple_exact": phase.b_simple_exact,
        }
    )


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
        rise = f"1/T rose by {run.expected:.3g}, the noise scale by {_in_words(run.ratio)}"
        exact = f"{run.exact_ratio:.3g} with exact |G|²"
        print_line(f"{run.what}: {rise}; {exact}; after over before: {_in_words(run.return_ratio)}")


def _in_words(ratio: Ratio) -> str:
    if ratio.high < float("inf"):
        return f"{ratio.value:.3g} (95 %: {ratio.low:.3g}-{ratio.high:.3g})"
    return f"more than {ratio.low:.2g}" if ratio.low > 0 else "an unresolved factor"


def _write(runs: list[TemperatureRun], numbers: dict[str, Any], folder: Path) -> None:
    import json

    from rl_scaling.report.page import export_figure
    from rl_scaling.validation.experiments.temperature_chart import temperature_figure

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "temperature.json").write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    for path in export_figure(temperature_figure(runs), folder / "temperature"):
        say(f"wrote {path}")
