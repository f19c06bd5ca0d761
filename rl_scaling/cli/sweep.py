"""`rl-scaling sweep`: many runs over batch sizes, learning rates and seeds, resumed when called again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rl_scaling.cli.interrupt import Interruptible
from rl_scaling.cli.options import say
from rl_scaling.config import ConfigError
from rl_scaling.store import Store, list_runs
from rl_scaling.sweeps.plan import SweepPlan, kept_goals

if TYPE_CHECKING:
    from rl_scaling.sweeps.sweep import Sweep


def run_sweeps(
    plans: Sequence[tuple[SweepPlan, Store]],
    *,
    workers: int,
    stop_early: bool = False,
    device: str = "auto",
    deadline_seconds: float = math.inf,
) -> list[Sweep]:
    """Carry out plans, each in a store of its own, with live progress on stderr; they share the workers.

    Ctrl-C and SIGTERM save what runs and return.

    Raises:
        ConfigError: no such device, not enough memory, or a store holds a sweep of another task.
    """
    from rl_scaling.cli.live import SweepDisplay
    from rl_scaling.domains.rl.memory import require_memory
    from rl_scaling.store.provenance import other_code
    from rl_scaling.sweeps.sweep import Sweep, run_side_by_side
    from rl_scaling.sweeps.trial import choose_device
    from rl_scaling.sweeps.workers import Worker

    # What cannot be run is refused before anything is written.
    trials = [trial for plan, _ in plans for trial in plan.trials()]
    require_memory(trials, device=choose_device(device), side_by_side=workers)
    joined = [(_joined(plan, store), store) for plan, store in plans]
    for plan, store in joined:
        store.save_plan(plan.to_dict())
    shared = [Worker() for _ in range(workers)]
    sweeps = [Sweep(plan, store, workers=shared, stop_early=stop_early, device=device) for plan, store in joined]
    for sweep in sweeps:
        task, further = sweep.plan.base.task, _then(sweep.plan)
        say(f"{len(sweep.trials)} trials of {task} in {sweep.store.root}, {workers} side by side{further}")
        other = other_code(list_runs(sweep.store.root))
        if other:
            say(f"warning: {other}")
    with Interruptible() as stop, SweepDisplay() as display:
        run_side_by_side(sweeps, display.show, asked_to_stop=lambda: stop.asked, deadline_seconds=deadline_seconds)
    return sweeps


def _then(plan: SweepPlan) -> str:
    further = " ".join(map(str, plan.best_seeds))
    return f"; then seeds {further} at the best rates" if further else ""


def _joined(plan: SweepPlan, store: Store) -> SweepPlan:
    """The plan with the goals that earlier sweeps of the same task kept in this store.

    Raises:
        ConfigError: the store holds a sweep of another task.
    """
    earlier = kept_goals(store)
    task = plan.base.task
    if earlier and task not in earlier:
        raise ConfigError(f"{store.root} holds a sweep of {', '.join(earlier)}: give another --out")
    return dataclasses.replace(plan, goals=tuple(sorted({*earlier.get(task, ()), *plan.goals})))


def report_outcome(sweeps: Sequence[Sweep]) -> int:
    """Say how sweeps ended; the exit code."""
    trials = [trial for sweep in sweeps for trial in sweep.trials.values()]
    counts = {s: sum(t.status == s for t in trials) for s in ("done", "stopped", "diverged", "interrupted")}
    say(", ".join(f"{count} {status}" for status, count in counts.items() if count) + f" of {len(trials)} trials")
    saved = sum(sweep.frames_saved for sweep in sweeps)
    if saved:
        say(f"stopping early saved {saved:,} frames")
    for trial in trials:
        if trial.failure:
            say(f"failed: {trial.config.environment.name}, {trial.label}: {trial.failure}")
    left = sum(not t.sealed for t in trials)
    if left:
        say(f"{left} trials are not finished: the same command goes on where this one stopped")
    return 1 if left else 0
