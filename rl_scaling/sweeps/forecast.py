"""What a sweep takes in time, memory and disk, said before it starts, from a throughput measured on this machine."""

from __future__ import annotations

import contextlib
import heapq
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_scaling.config import RunDescription
from rl_scaling.domains import find_domain
from rl_scaling.domains.base import Control, Domain, Hardware, TaskPlan, TrialCost
from rl_scaling.estimates import duration, number
from rl_scaling.records import SEALED, LossRecord, TrainingRecord
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import SweepPlan
from rl_scaling.sweeps.trial import units_of
from rl_scaling.sweeps.tuner import Tuner

# A sealed row, and one of a run under way, as JSON; rows that a run of any length has, about.
ROW_BYTES, OPEN_ROW_BYTES, ROWS, CONFIG_BYTES = 140, 900, 100, 2_000
_SAMPLES, _SAMPLE_SECONDS = 8, 1.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is left of one sweep.

    Its trials count one further seed run for each batch size and seed of `best_seeds`; extensions of grids come on top.

    Attributes:
        task, store: which sweep.
        unit: what it counts.
        trials: still to be run.
        units: of the trials.
        seconds: of all slots' work added up.
        longest_seconds: of the longest trial.
        extension_seconds: on top of `seconds`, if every grid were extended on one side as far as it may be.
        memory_bytes: of the largest trials side by side.
        kept_bytes: on disk, what stays.
        open_bytes: on disk as well, while it runs.
        note: what it rests on, for people.
    """

    task: str
    store: str
    unit: str
    trials: int
    units: int
    seconds: float
    longest_seconds: float
    extension_seconds: float
    memory_bytes: float
    kept_bytes: float
    open_bytes: float
    note: str


@dataclass(frozen=True)
class Forecasts:
    """What is left of sweeps that share their slots, and what this machine has.

    Attributes:
        sweeps: each by itself.
        slots: trials side by side.
        memory_free_bytes, disk_free_bytes: on this machine now.
    """

    sweeps: tuple[Forecast, ...]
    slots: int
    memory_free_bytes: float
    disk_free_bytes: float

    def seconds(self, *, extended: bool = False) -> float:
        """The least time that they take; `extended`: with the extensions of their grids."""
        longest = max((f.longest_seconds for f in self.sweeps), default=0.0)
        return max(longest, sum(f.seconds + extended * f.extension_seconds for f in self.sweeps) / self.slots)

    @property
    def memory_bytes(self) -> float:
        """At the peak."""
        return max((f.memory_bytes for f in self.sweeps), default=0.0)

    @property
    def disk_bytes(self) -> float:
        """At the peak."""
        return sum(f.kept_bytes for f in self.sweeps) + max((f.open_bytes for f in self.sweeps), default=0.0)

    def to_plain(self) -> dict[str, Any]:
        """For --json."""
        unit = self.sweeps[0].unit
        return {
            "sweeps": [asdict(one) for one in self.sweeps],
            "trials": sum(one.trials for one in self.sweeps),
            unit: sum(one.units for one in self.sweeps),
            "hours": self.seconds() / 3600,
            "hours_extended": self.seconds(extended=True) / 3600,
            "memory_bytes": self.memory_bytes,
            "memory_free_bytes": self.memory_free_bytes,
            "disk_bytes": self.disk_bytes,
            "disk_free_bytes": self.disk_free_bytes,
            "workers": self.slots,
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        for one in self.sweeps:
            alone = duration(max(one.longest_seconds, one.seconds / self.slots))
            yield (
                f"{one.store}: {one.trials:,} trials, {one.units:,} {one.unit}, {alone} by itself, memory"
                f" {_bytes(one.memory_bytes)}, disk {_bytes(one.kept_bytes + one.open_bytes)} ({one.note})"
            )
        hours, extended = duration(self.seconds()), duration(self.seconds(extended=True))
        trials, units, unit = (
            sum(f.trials for f in self.sweeps),
            sum(f.units for f in self.sweeps),
            self.sweeps[0].unit,
        )
        at_once = f"{self.slots} at a time"
        yield (
            f"{trials:,} trials, {units:,} {unit}: about {hours} with {at_once},"
            f" up to {extended} with every grid extended"
        )
        yield (
            f"memory {_bytes(self.memory_bytes)} of {_bytes(self.memory_free_bytes)} free,"
            f" disk {_bytes(self.disk_bytes)} of {_bytes(self.disk_free_bytes)} free"
        )
        if self.memory_bytes > self.memory_free_bytes:
            yield "it would be refused, for that is more memory than is free: give smaller batches or fewer --workers"


def forecast_sweeps(plans: Mapping[Path, SweepPlan], slots: int, hardware: Hardware) -> Forecasts:
    """What is left of plans of one domain, by the folders of their stores; it measures for some seconds.

    Raises:
        ConfigError: a plan that cannot be run here.
        StoreError: a store is damaged.
    """
    import psutil

    first = next(iter(plans)).absolute()
    existing = next(folder for folder in (first, *first.parents) if folder.exists())
    domain: Domain[Any] = find_domain(next(iter(plans.values())).domain)
    todo = {folder: _left_of(plan, Store(folder)) for folder, plan in plans.items()}
    configs = [config for left, extensions in todo.values() for config in (*left, *extensions)]
    # Measured once for all of them: what differs between games is little beside what differs between batch sizes.
    costs, note = domain.costs(configs, hardware, slots) or _measured(domain, configs, hardware)
    cost_of = iter(costs)
    made = []
    for folder, (left, extensions) in todo.items():
        now, later = ([next(cost_of) for _ in part] for part in (left, extensions))
        made.append(_forecast(domain, plans[folder], str(folder), left, (now, later), slots, note))
    return Forecasts(
        tuple(made),
        slots,
        psutil.virtual_memory().available,
        shutil.disk_usage(existing).free,
    )


def _left_of(plan: SweepPlan, store: Store) -> tuple[list[RunDescription], list[RunDescription]]:
    """The runs that are still to be made, and those that extended grids would add."""
    known = [config for _, config in Tuner(plan, {}).first()] + list(_further_seeds(plan))
    left = [c for c in {c.run_id: c for c in known}.values() if store.status(c.run_id) not in SEALED]
    return left, [c for c in _extensions(plan) if store.status(c.run_id) not in SEALED]


def _forecast(
    domain: Domain[Any],
    plan: SweepPlan,
    store: str,
    left: Sequence[RunDescription],
    costs: tuple[Sequence[TrialCost], Sequence[TrialCost]],
    slots: int,
    note: str,
) -> Forecast:
    now, later = costs
    jobs: dict[Any, float] = {}
    for config, cost in zip(left, now, strict=True):
        key = domain.job_key(config)
        jobs[key] = jobs.get(key, 0.0) + cost.seconds
    identity = plan.tasks[0].example.identity
    return Forecast(
        task=", ".join(plan.goals),
        store=store,
        unit=identity.unit,
        trials=len(left),
        units=sum(config.length for config in left),
        seconds=sum(cost.seconds for cost in now),
        longest_seconds=max(jobs.values(), default=0.0),
        extension_seconds=sum(cost.seconds for cost in later),
        memory_bytes=sum(heapq.nlargest(slots, (cost.memory_bytes for cost in now))),
        kept_bytes=sum(cost.kept_bytes for cost in now),
        open_bytes=sum(heapq.nlargest(slots, (cost.open_bytes for cost in now))),
        note=note,
    )


def _further_seeds(plan: SweepPlan) -> Iterator[RunDescription]:
    """The further seeds as if the middle rate of each grid were the best."""
    for task in plan.tasks:
        for size in () if task.explicit() else sorted(set(task.batch_sizes)):
            grid = task.learning_rates.grid(size)
            yield from (task.config(size, grid[len(grid) // 2], seed) for seed in plan.best_seeds)


def _extensions(plan: SweepPlan) -> Iterator[RunDescription]:
    """Every grid continued upwards."""
    for task in plan.tasks:
        for size in () if task.explicit() or plan.search else sorted(set(task.batch_sizes)):
            yield from _extended(task, size, plan.seeds)


def _extended(task: TaskPlan, size: int, seeds: Sequence[int]) -> Iterator[RunDescription]:
    rates = task.learning_rates.grid(size)
    while (rate := task.learning_rates.beyond(rates, max(rates), size)) is not None:
        rates.append(rate)
        yield from (task.config(size, rate, seed) for seed in seeds)


# --- measured by running ------------------------------------------------------------------------------------------


def _measured(
    domain: Domain[Any], configs: Sequence[RunDescription], hardware: Hardware
) -> tuple[list[TrialCost], str]:
    """Costs from some of the jobs, small, large and in between, each run for about a second; others by a power law."""
    jobs: dict[Any, list[RunDescription]] = {}
    for config in configs:
        jobs.setdefault(domain.job_key(config), []).append(config)
    ordered = sorted(jobs.values(), key=lambda job: job[0].identity.batch_size)
    chosen = [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, min(_SAMPLES, len(ordered))).astype(int))]
    sizes, each = [], []
    for job in chosen:
        seconds = _seconds_per_unit(domain, job, hardware)
        if seconds is not None:
            sizes.append(job[0].identity.batch_size)
            each.append(seconds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    line = np.polyfit(np.log(sizes), np.log(each), 1) if len(set(sizes)) > 1 else (0.0, np.log(max(each, default=1e-9)))
    costs = [
        TrialCost(
            seconds=float(np.exp(np.polyval(line, np.log(c.identity.batch_size)))) * c.length,
            memory_bytes=memory,
            kept_bytes=CONFIG_BYTES + ROW_BYTES * ROWS,
            open_bytes=OPEN_ROW_BYTES * ROWS,
        )
        for c in configs
    ]
    return costs, f"{number(len(sizes))} of {number(len(ordered))} jobs measured for {_SAMPLE_SECONDS:g} s each"


def _seconds_per_unit(domain: Domain[Any], job: Sequence[RunDescription], hardware: Hardware) -> float | None:
    """Of one run's share of a job that trains for a moment; None where it had no end of an update."""
    part = domain.together(job, hardware)[0]
    begun, units = time.perf_counter(), dict.fromkeys(range(len(part)), 0)
    control = Control(lambda: time.perf_counter() - begun > _SAMPLE_SECONDS)
    events = domain.run(part, [None] * len(part), control, hardware)
    with contextlib.closing(events):  # pyright: ignore[reportArgumentType]
        for place, event in events:
            if isinstance(event, TrainingRecord | LossRecord):
                units[place] = units_of(event)
    done = sum(units.values())
    return (time.perf_counter() - begun) / done if done else None


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
