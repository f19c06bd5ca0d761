"""`rl-scaling calibrate`: the estimators of the noise scale against known answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich.progress import Progress

from rl_scaling.cli.options import Count, as_json, at_least, console, print_json


@dataclass(frozen=True)
class Calibrate:
    """Run the estimators on gradients whose noise scale is known; print bias, coverage and the part left unresolved."""

    fast: bool = False
    """Fewer settings and repeats: seconds instead of minutes."""
    repeats: Count | None = None
    """Series in each setting; 4,000, or 200 with --fast."""
    measurements: Count = 400
    """Measurements in each series."""
    seed: int = 0
    """Seed of all randomness."""
    workers: int = 0
    """Processes; 0: every core this process may use. The result does not depend on it."""
    json: bool = False
    """Print the rows as JSON on stdout."""

    def run(self) -> int:
        at_least(2, repeats=2 if self.repeats is None else self.repeats, measurements=self.measurements)
        at_least(0, seed=self.seed, workers=self.workers)
        from rl_scaling.cli.calibration_table import print_calibration
        from rl_scaling.envs import available_cpus
        from rl_scaling.validation.calibration import Plan, calibrate

        plan = Plan(repeats=200, groups=(2, 8, 64), correlations=(0.0, 0.9)) if self.fast else Plan()
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
            return 0
        print_calibration(plan, rows)
        return 0
