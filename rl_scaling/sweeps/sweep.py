"""Carrying out a plan against a store: every trial once, several side by side, whatever the domain."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rl_scaling.config import ConfigError, to_dict
from rl_scaling.domains import find_domain
from rl_scaling.domains.base import ON_ONE_THREAD, Domain, Hardware, Starting
from rl_scaling.estimates import count_of
from rl_scaling.store import RunInfo, Store, StoreError, list_runs
from rl_scaling.store.provenance import other_code
from rl_scaling.sweeps.executors import Executor, make_executor
from rl_scaling.sweeps.plan import SweepPlan, save_plan
from rl_scaling.sweeps.trial import Job, RunEnded, RunEvent, RunFailed
from rl_scaling.sweeps.tuner import Trial, Tuner

CANNOT_WIN = "no goal is left that it could reach first"
_STOP_ELSEWHERE_SECONDS = 0.5


class Sweep:
    """A plan being carried out against a store.

    Args:
        plan: what to run.
        store: where runs go; what is done there is not run again, what was interrupted resumes.
        stop_early: stop trials that can no longer be the first to reach any goal.
        hardware: of every trial.

    Raises:
        ConfigError: the store holds runs of other problems, or this machine cannot run the trials.
        StoreError: the folder cannot be used.
    """

    def __init__(
        self, plan: SweepPlan, store: Store, *, stop_early: bool = False, hardware: Hardware = ON_ONE_THREAD
    ) -> None:
        self.plan, self.store, self.stop_early, self.hardware = plan, store, stop_early, hardware
        self.domain: Domain[Any] = find_domain(plan.domain)
        self.trials: dict[str, Trial] = {}
        self.tuner = Tuner(plan, self.trials)
        self.stopped_by: Literal["", "request", "deadline"] = ""
        self.units_saved = 0
        self._ours: set[str] = set()
        self._nothing_waits = False
        self._goals: dict[str, tuple[float, ...]] = plan.goals

    def begin(self, side_by_side: int = 1) -> list[str]:
        """Look at what there is, keep the plan, and list the trials; what is to be said about them.

        What cannot be run is refused before anything is written.
        """
        first = list(self.tuner.first())
        self.hardware, said = self.domain.settled([config for _, config in first], self.hardware)
        self.domain.refuse([config for _, config in first], self.hardware, side_by_side)
        infos = list_runs(self.store.root) if self.store.root.is_dir() else []
        infos = [info for info in infos if not info.identity.frozen]  # measurements of runs here
        _refuse_other_problems(self.plan, self.store, infos)
        kept = save_plan(self.store, self.plan)
        # Where runs stop at their goals, only those of today count; elsewhere, all that a front is drawn of.
        self._goals = self.plan.goals if self.plan.stop_at_goals else kept
        for place, config in first:
            self._add(place, config)
        said += [note for note in (other_code(infos),) if note]
        others = _others(self.plan, self.trials, infos)
        if others:
            said.append(f"{count_of(len(others), 'run')} here of other settings or lengths: they stay, and count too")
        resumed = [t for t in self.trials.values() if t.ended_short and self.tuner.can_win(t)]
        if resumed:
            more = "train on" if len(resumed) > 1 else "trains on"
            said.append(f"{count_of(len(resumed), 'run')} stopped short of the goals asked for now {more}")
        return said

    # --- trials -----------------------------------------------------------------------------------------------------

    def _add(self, place: int, config: Any, *, only_if_over: bool = False) -> None:
        trial = Trial(config, place, config.length, self._goals.get(config.task, ()))
        try:
            trial.status = self.store.status(config.run_id)
            if only_if_over and trial.status == "running":
                return
            for record in self.store.read_rows(config.run_id):
                trial.hear(record)
        except StoreError as error:  # one damaged run must not end the others
            trial.failure = str(error)
        self.trials[config.run_id] = trial
        self._nothing_waits = False

    def next_job(self, idle: int = 1) -> Job | None:
        """Runs to start now, those that train together in one job; None where none is waiting.

        Args:
            idle: slots that wait for something to do: where there are more of them than jobs, runs that could train
                together are divided among them.
        """
        if self.stopped_by:
            return None
        for trial in self.elsewhere():
            self._add(trial.place, trial.config, only_if_over=True)  # it may have ended or been given up since
        while not self._nothing_waits:
            waiting = [t for t in self.trials.values() if self._waits(t)]
            if waiting:
                return self._job(waiting, idle)
            more = self.tuner.more()
            self._nothing_waits = not more
            for place, config in more:
                self._add(place, config)
        return None

    def _waits(self, trial: Trial) -> bool:
        if trial.failure or trial.status == "running":
            return False
        if trial.ended_short:
            return not trial.done_here and self.tuner.can_win(trial)
        return not trial.sealed

    def _job(self, waiting: Sequence[Trial], idle: int) -> Job:
        first = waiting[0]
        keys = [(trial.place, self.domain.job_key(trial.config)) for trial in waiting]
        chosen = [trial for trial, key in zip(waiting, keys, strict=True) if key == keys[0]]
        slots_each = max(1, idle // len(set(keys)))
        chosen = chosen[: -(-len(chosen) // slots_each)]
        reopen = frozenset(t.config.run_id for t in chosen if t.sealed)
        for trial in chosen:
            trial.status = "running"
            self._ours.add(trial.config.run_id)
        goals = first.goals
        configs = tuple(t.config for t in chosen)
        return Job(configs, self.store.root, self.hardware, goals, self.plan.stop_at_goals, reopen)

    @property
    def to_do(self) -> int:
        """Trials that are still to end, here or elsewhere."""
        return sum(self._waits(trial) or trial.status == "running" for trial in self.trials.values())

    def elsewhere(self) -> list[Trial]:
        """Trials that another process is running: another sweep, or workers of a killed one that have not noticed."""
        return [t for run_id, t in self.trials.items() if t.status == "running" and run_id not in self._ours]

    def runs(self, run_id: str) -> bool:
        """Whether this sweep has a run under way."""
        return run_id in self._ours

    @property
    def running(self) -> list[Trial]:
        return [self.trials[run_id] for run_id in self.trials if run_id in self._ours]

    # --- events -----------------------------------------------------------------------------------------------------

    def hear(self, run_id: str, event: RunEvent) -> str:
        """Take in what happened to a trial; a reason to stop it for good, or ""."""
        trial = self.trials[run_id]
        if isinstance(event, RunEnded | RunFailed):
            self._ours.discard(run_id)
            self._nothing_waits = False
        match event:
            case Starting(done, total):
                trial.starting = f"starting environments: {done / total:.0%}"
            case RunEnded(status, _):
                trial.status, trial.done_here = status, status == "done"
                if status == "stopped":
                    self.units_saved += max(0, trial.length - trial.units)
            case RunFailed(reason):
                trial.status, trial.failure = None, reason
            case _:
                trial.starting = ""
                trial.hear(event)
                if self.stop_early and trial.goals and not self.tuner.can_win(trial):
                    return CANNOT_WIN
        return ""

    def summary(self) -> list[dict[str, object]]:
        """One row per trial, as plain data."""
        rows = []
        for run_id, t in self.trials.items():
            i = t.identity
            rows.append(
                {
                    "run_id": run_id,
                    "task": i.task,
                    "store": str(self.store.root),
                    "batch_size": i.batch_size,
                    "setting": i.setting,
                    "learning_rate": i.learning_rate,
                    "seed": i.seed,
                    "status": t.status or "waiting",
                    i.unit: t.units,
                    "goals_reached": len(t.tracker.reached),
                    "failure": t.failure,
                }
            )
        return rows


def _others(plan: SweepPlan, trials: Mapping[str, Trial], infos: Sequence[RunInfo]) -> list[RunInfo]:
    """Runs of a plan's tasks that are neither in it nor follow from it, as further rates and seeds do."""
    tasks = set(plan.goals)
    asked = {_without_what_is_tuned(to_dict(trial.config), plan) for trial in trials.values()}
    return [
        info for info in infos if info.identity.task in tasks and _without_what_is_tuned(info.config, plan) not in asked
    ]


def _without_what_is_tuned(config: Mapping[str, Any], plan: SweepPlan) -> str:
    tuned = ("learning_rate", "seed", *(("optimizer", "schedule") if plan.search else ()))
    plain = {name: value for name, value in config.items() if name not in tuned}
    for name, value in plain.items():
        if isinstance(value, Mapping):
            plain[name] = _without_what_is_tuned(value, plan)
    return json.dumps(plain, sort_keys=True)


def _refuse_other_problems(plan: SweepPlan, store: Store, infos: Sequence[RunInfo]) -> None:
    here = {(i.identity.domain, i.identity.problem) for i in infos}
    wanted = {(i.domain, i.problem) for i in (task.example.identity for task in plan.tasks)}
    if here and not here & wanted:
        problems = ", ".join(sorted(problem for _, problem in here))
        raise ConfigError(f"{store.root} holds runs of {problems}: give another folder (--out)")


def run_sweeps(
    sweeps: Sequence[Sweep],
    executor: Executor,
    *,
    on_event: Callable[[Sweep, str, RunEvent], None] = lambda sweep, run_id, event: None,
    on_change: Callable[[Sequence[Sweep]], None] = lambda sweeps: None,
    asked_to_stop: Callable[[], bool] = lambda: False,
    deadline_seconds: float = math.inf,
) -> None:
    """Run all trials of sweeps that have begun, on one executor; the first sweep's come first.

    `on_change` hears after every event and about twice a second. When asked to stop, or at the deadline, every running
    trial saves itself at its next update and the rest is left for a later call. An exception ends the jobs at once;
    then at most what came after the last checkpoints is lost.
    """
    deadline = time.monotonic() + deadline_seconds

    def stop_when_due() -> bool:
        asked = asked_to_stop()
        if not asked and time.monotonic() < deadline:
            return False
        for sweep in sweeps:
            sweep.stopped_by = sweep.stopped_by or ("request" if asked else "deadline")
        return True

    try:
        stopping = stop_when_due()
        while _start_waiting(sweeps, executor):
            for run_id, event in executor.events(_STOP_ELSEWHERE_SECONDS, stop_when_due):
                sweep = next(s for s in sweeps if s.runs(run_id))
                reason = sweep.hear(run_id, event)
                if reason:
                    executor.stop(run_id, reason)
                on_event(sweep, run_id, event)
            on_change(sweeps)
            if not stopping and stop_when_due():
                stopping = True
                executor.interrupt()
    except BaseException:
        executor.close(kill=True)
        raise
    executor.close()
    on_change(sweeps)


def _start_waiting(sweeps: Sequence[Sweep], executor: Executor) -> bool:
    """Give idle slots something to do; False when there is nothing left to wait for."""
    for job in _waiting_jobs(sweeps, executor):
        executor.start(job)
    elsewhere = any(sweep.elsewhere() for sweep in sweeps)
    if executor.running:
        return True
    if elsewhere and not sweeps[0].stopped_by:
        time.sleep(_STOP_ELSEWHERE_SECONDS)
        return True
    return False


def _waiting_jobs(sweeps: Sequence[Sweep], executor: Executor) -> Iterator[Job]:
    for sweep in sweeps:
        while len(executor.running) < executor.slots:
            job = sweep.next_job(executor.slots - len(executor.running))
            if job is None:
                break
            yield job


def sweep(
    plan: SweepPlan,
    store: Store | Path | str,
    executor: Executor | str = "processes",
    *,
    slots: int = 0,
    stop_early: bool = False,
    hardware: Hardware = ON_ONE_THREAD,
    on_event: Callable[[Sweep, str, RunEvent], None] = lambda sweep, run_id, event: None,
    deadline_seconds: float = math.inf,
) -> Sweep:
    """Carry out a plan: every trial that the store lacks, grids extended and further seeds added as the plan says.

    Args:
        plan: tasks over batch sizes, learning rates and seeds.
        store: where the runs go; the same call resumes what was interrupted and repeats nothing.
        executor: "serial", "processes", or any `rl_scaling.sweeps.executors.Executor`.
        slots: trials side by side of a named executor; 0: one per core that this process may use.
        stop_early: stop trials that can no longer be the first to reach any goal.
        hardware: device and threads of every trial.
        on_event: hears every record and every end.
        deadline_seconds: after so long running trials save themselves and the call returns.

    Returns:
        The sweep, with its trials by run id, `summary()` and `tuner.remarks()`.

    Raises:
        ConfigError: a plan that cannot be run.
        StoreError: the folder cannot be used.
    """
    begun = Sweep(plan, store if isinstance(store, Store) else Store(store), stop_early=stop_early, hardware=hardware)
    if isinstance(executor, str):
        from rl_scaling.envs import available_cpus

        executor = make_executor(executor, slots or available_cpus())
    begun.begin(executor.slots)
    run_sweeps([begun], executor, on_event=on_event, deadline_seconds=deadline_seconds)
    return begun
