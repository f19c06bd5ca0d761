"""`rl-scaling sweep`: many runs over batch sizes, learning rates and seeds, resumed when called again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rl_scaling.cli.options import at_least, print_json, say, unset
from rl_scaling.config import LearningRates
from rl_scaling.store import Store

if TYPE_CHECKING:
    from rl_scaling.domains.base import Hardware
    from rl_scaling.sweeps.executors import Executor
    from rl_scaling.sweeps.plan import Search, SweepPlan
    from rl_scaling.sweeps.sweep import Sweep


@dataclass(frozen=True)
class SweepOptions:
    """What every sweep takes, whatever its domain."""

    seeds: Annotated[tuple[int, ...] | None, unset("INT [INT ...]")] = None
    """Seeds of every combination."""
    best_seeds: Annotated[tuple[int, ...] | None, unset("INT [INT ...]")] = None
    """Further seeds, run only at the learning rates that are best at their batch size once its grid is finished."""
    learning_rates: Annotated[tuple[float, ...], unset("[FLOAT [FLOAT ...]]")] = ()
    """These learning rates for every batch size, instead of a grid centred by A.3 and its extensions."""
    rates: Annotated[int | None, unset("INT")] = None
    """Learning rates per batch size that are tried first, centred by A.3."""
    spacing: float = LearningRates.spacing
    """Ratio of neighbouring learning rates."""
    extensions: Annotated[int | None, unset("INT")] = None
    """Learning rates that may be added on a side where a best one lies on the edge."""
    search: Literal["grid", "sobol"] = "grid"
    """grid, or sobol: quasi-random points of the learning rate and of what else the domain tunes."""
    trials: int = 32
    """Search: points per task and batch size that do not diverge."""
    width: float = 64.0
    """Search: upper over lower bound of the learning rate."""
    decay: bool = False
    """Search: a decay of the learning rate too, where the domain has one."""
    stop_early: bool = False
    """Stop trials that can no longer be the first to reach any goal; says what that saved."""
    out: Annotated[Path | None, unset("DIR")] = None
    """Folder of the runs."""
    executor: str = "processes"
    """What runs the trials: processes, one per slot, or serial, this process."""
    workers: int = 0
    """Trials side by side, one thread each; 0: one per core this process may use."""
    device: str = "auto"
    """Device of every trial: cpu, cuda, or auto, a GPU where there is one."""
    minutes: float = math.inf
    """Stop after this time; running trials save themselves and the same command resumes them."""
    dry_run: bool = False
    """Print what the sweep will take in time, memory and disk, and start nothing."""
    tensorboard: Annotated[Path | None, unset("DIR")] = None
    """Write TensorBoard event files here too, while trials run."""
    wandb: Annotated[str | None, unset("PROJECT")] = None
    """Log to this project of Weights & Biases too; WANDB_MODE=offline keeps it on this machine."""
    json: bool = False
    """Print a summary of the trials (with --dry-run: what they will take) as JSON on stdout."""

    def plans(self) -> Mapping[Path, SweepPlan]:
        """What to run, by the folder of its store.

        Raises:
            ConfigError: the options describe nothing that can be run.
        """
        raise NotImplementedError

    @property
    def hardware(self) -> Hardware:
        from rl_scaling.domains.base import Hardware

        return Hardware(device=self.device)

    @property
    def sobol(self) -> Search | None:
        """The search, if one was asked for."""
        from rl_scaling.sweeps.plan import Search

        return Search(trials=self.trials, width=self.width, decay=self.decay) if self.search == "sobol" else None

    @property
    def shows_forecast(self) -> bool:
        """Whether what the sweep will take is said before it starts."""
        return False

    def run(self) -> int:
        at_least(0, workers=self.workers, minutes=self.minutes)
        from rl_scaling.envs import available_cpus
        from rl_scaling.sweeps.executors import make_executor
        from rl_scaling.sweeps.trackers import require_installed

        require_installed(tensorboard=self.tensorboard, wandb=self.wandb)
        plans = self.plans()
        slots = self.workers or available_cpus()
        if self.dry_run or self.shows_forecast:
            self._say_forecast(plans, slots)
            if self.dry_run:
                return 0
        sweeps = run_plans(
            plans,
            make_executor(self.executor, slots),
            stop_early=self.stop_early,
            hardware=self.hardware,
            deadline_seconds=60 * self.minutes,
            tensorboard=self.tensorboard,
            wandb=self.wandb,
        )
        if self.json:
            print_json([row for sweep in sweeps for row in sweep.summary()])
        code = report_outcome(sweeps)
        return code or int(self.measure(sweeps))

    def measure(self, sweeps: Sequence[Sweep]) -> bool:
        """What is measured once all trials are over; whether that was interrupted."""
        return False

    def _say_forecast(self, plans: Mapping[Path, SweepPlan], slots: int) -> None:
        from rl_scaling.sweeps.forecast import forecast_sweeps

        say(f"measuring {slots} trials side by side")
        found = forecast_sweeps(plans, slots, self.hardware)
        if self.dry_run and self.json:
            print_json(found.to_plain())
        else:
            for line in found.lines():
                say(line)


def run_plans(
    plans: Mapping[Path, SweepPlan],
    executor: Executor,
    *,
    stop_early: bool = False,
    hardware: Hardware | None = None,
    deadline_seconds: float = math.inf,
    tensorboard: Path | None = None,
    wandb: str | None = None,
) -> list[Sweep]:
    """Carry out plans, each in a store of its own, on one executor, with live progress on stderr.

    Ctrl-C, SIGTERM and SIGHUP save what runs and return.

    Raises:
        ConfigError: no such device, not enough memory, or a store holds runs of other problems.
    """
    from rl_scaling.cli.live import Interruptible, SweepDisplay
    from rl_scaling.domains.base import Hardware
    from rl_scaling.sweeps.sweep import Sweep, run_sweeps
    from rl_scaling.sweeps.trackers import SweepTrackers

    sweeps = [
        Sweep(plan, Store(folder), stop_early=stop_early, hardware=hardware or Hardware())
        for folder, plan in plans.items()
    ]
    for sweep in sweeps:
        said = sweep.begin(executor.slots)
        tasks = ", ".join(dict.fromkeys(task.task for task in sweep.plan.tasks))
        further = " ".join(map(str, sweep.plan.best_seeds))
        then = f"; then seeds {further} at the best rates" if further else ""
        where = f"{len(sweep.trials)} trials of {tasks} in {sweep.store.root}"
        say(f"{where}, {sweep.to_do} to do, {executor.slots} at a time{then}")
        for line in said:
            say(f"note: {line}")
    with (
        Interruptible() as stop,
        SweepDisplay() as display,
        SweepTrackers(tensorboard, wandb) as trackers,
    ):
        run_sweeps(
            sweeps,
            executor,
            on_event=trackers.hear,
            on_change=display.show,
            asked_to_stop=lambda: stop.asked,
            deadline_seconds=deadline_seconds,
        )
    return sweeps


def report_outcome(sweeps: Sequence[Sweep]) -> int:
    """Say how sweeps ended; the exit code."""
    trials = [trial for sweep in sweeps for trial in sweep.trials.values()]
    counts = {s: sum(t.status == s for t in trials) for s in ("done", "stopped", "diverged", "interrupted")}
    say(", ".join(f"{count} {status}" for status, count in counts.items() if count) + f" of {len(trials)} trials")
    for sweep in sweeps:
        if sweep.stop_early and sweep.units_saved:
            unit = sweep.plan.tasks[0].example.identity.unit
            say(f"stopping early saved {sweep.units_saved:,} {unit}")
        if not sweep.stopped_by:
            for remark in sweep.tuner.remarks():
                say(remark)
    for trial in trials:
        if trial.failure:
            say(f"failed: {trial.identity.task}, {trial.label}: {trial.failure}")
    left = sum(not t.sealed for t in trials)
    if left:
        say(f"{left} trials are not finished: the same command resumes where this one stopped")
    return 1 if left else 0


def folders_of(options: SweepOptions, plans: Mapping[str, Any]) -> dict[Path, Any]:
    """Plans by the folder of each: --out, or a folder of its own in --out or runs where there are more."""
    if len(plans) == 1 and options.out:
        return {options.out: next(iter(plans.values()))}
    root = options.out or Path("runs")
    return {root / name: plan for name, plan in plans.items()}
