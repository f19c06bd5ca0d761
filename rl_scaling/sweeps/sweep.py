"""Running a plan: every trial once, several side by side, the grid extended where its best rate lies on an edge."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rl_scaling.analysis import GoalTracker, Progress, leading_rates, rate_can_still_win
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.records import SEALED, Status, TrainingRecord
from rl_scaling.store import Store, StoreError
from rl_scaling.sweeps import INTERRUPT
from rl_scaling.sweeps.plan import SweepPlan
from rl_scaling.sweeps.workers import Ended, Event, Failed, Job, Recorded, Starting, Worker, events


@dataclass
class Trial:
    """One cell of the grid and how far it has come."""

    config: RunConfig
    goals: GoalTracker
    status: Status | None = None
    frames: int = 0
    frames_per_second: float = math.nan
    starting: str = ""
    failure: str = ""

    _heard: list[TrainingRecord] = field(default_factory=list)

    def hear(self, record: TrainingRecord) -> None:
        """Take in a row: how far, how fast, and which goals the smoothed score has reached.

        A resumed run begins again at its checkpoint: rows that it says anew take the place of those heard before.
        """
        if self._heard and record.updates <= self._heard[-1].updates:
            kept = [old for old in self._heard if old.updates < record.updates]
            self.goals, self._heard = self.goals.fresh(), []
            for old in kept:
                self.hear(old)
        self._heard.append(record)
        self.frames, self.frames_per_second = record.frames, record.frames_per_second
        self.goals.update(record.updates, record.frames, record.score, record.episodes)

    @property
    def progress(self) -> Progress:
        """What early stopping looks at."""
        reached = {goal: where.updates for goal, where in self.goals.reached.items()}
        return Progress(self.goals.updates, reached, ended=self.sealed or bool(self.failure))

    @property
    def label(self) -> str:
        c = self.config
        return f"{c.setting or f'batch {c.batch_size:,}'}, rate {c.agent.learning_rate:g}, seed {c.seed}"

    @property
    def sealed(self) -> bool:
        return self.status in SEALED

    @property
    def frames_left(self) -> int:
        return 0 if self.sealed or self.failure else max(0, self.config.frames - self.frames)


class Sweep:
    """A plan being carried out against a store.

    Args:
        plan: what to run.
        store: where runs go; sealed runs found there are not run again, interrupted ones go on.
        workers: trials run side by side, or the workers that run them, which several sweeps may share.
        stop_early: end trials that can no longer be the first to reach any goal.
        device: for every trial, "cpu", "cuda" or "auto".
        threads: for each trial.
    """

    def __init__(
        self,
        plan: SweepPlan,
        store: Store,
        *,
        workers: int | Sequence[Worker],
        stop_early: bool = False,
        device: str = "auto",
        threads: int = 1,
    ):
        self.plan = plan
        self.store = store
        self.stop_early = stop_early
        self.stopped_by: Literal["", "request", "deadline"] = ""
        self.frames_saved = 0
        self.trials: dict[str, Trial] = {}
        self.workers = [Worker() for _ in range(workers)] if isinstance(workers, int) else list(workers)
        self._device = device
        self._threads = threads
        for config in plan.trials():
            self._add(config)

    def run(
        self,
        on_change: Callable[[Sweep], None],
        *,
        asked_to_stop: Callable[[], bool] = lambda: False,
        deadline_seconds: float = math.inf,
    ) -> None:
        """See `run_side_by_side`, of this sweep alone."""
        run_side_by_side(
            [self], lambda _: on_change(self), asked_to_stop=asked_to_stop, deadline_seconds=deadline_seconds
        )

    def interrupt(self, why: Literal["request", "deadline"] = "request") -> None:
        """Have running trials save themselves at their next record, and start no more."""
        if not self.stopped_by:
            self.stopped_by = why
            for worker in self._own_workers:
                worker.tell(INTERRUPT)

    @property
    def interrupted(self) -> bool:
        return bool(self.stopped_by)

    @property
    def running(self) -> list[Trial]:
        return [self.trials[w.job.config.run_id] for w in self._own_workers if w.job is not None]

    @property
    def _own_workers(self) -> list[Worker]:
        """Those that run a trial of this sweep."""
        return [w for w in self.workers if w.job is not None and w.job.store == Path(self.store.root)]

    def summary(self) -> list[dict[str, object]]:
        """One row per trial, for --json."""
        return [
            {
                "run_id": run_id,
                "task": t.config.task,
                "store": str(self.store.root),
                "batch_size": t.config.batch_size,
                "setting": t.config.setting,
                "learning_rate": t.config.agent.learning_rate,
                "seed": t.config.seed,
                "status": t.status or "waiting",
                "frames": t.frames,
                "goals_reached": len(t.goals.reached),
                "failure": t.failure,
            }
            for run_id, t in self.trials.items()
        ]

    def _add(self, config: RunConfig) -> None:
        trial = Trial(config, GoalTracker(self.plan.goals))
        try:
            trial.status = self.store.status(config.run_id)
            for record in self.store.read_rows(config.run_id):
                assert isinstance(record, TrainingRecord)  # the config counts frames
                trial.hear(record)
        except StoreError as error:  # one damaged run must not end the others
            trial.failure = str(error)
        self.trials[config.run_id] = trial

    def start_waiting(self) -> bool:
        """Give idle workers something to do; False when there is nothing left to wait for."""
        for worker in self.workers:
            if worker.job is None and not self.interrupted:
                trial = self._next()
                if trial is None:
                    break
                trial.status = "running"
                worker.start(Job(trial.config, Path(self.store.root), self._device, self._threads))
        return bool(self.running or (self._elsewhere() and not self.interrupted))

    def _elsewhere(self) -> list[Trial]:
        """Trials that another process is running: another sweep, or workers of a killed one that have not noticed."""
        ours = {id(trial) for trial in self.running}
        return [t for t in self.trials.values() if t.status == "running" and id(t) not in ours]

    def _next(self) -> Trial | None:
        for trial in self._elsewhere():
            self._add(trial.config)  # it may have ended or been given up since
        while True:
            for trial in self.trials.values():
                if trial.status in (None, "interrupted") and not trial.failure:
                    return trial
            if not (self._extend() or self._add_best_seeds()):
                return None

    def _extend(self) -> bool:
        """Add trials where the best rate of a finished batch size lies on the edge of what was tried."""
        before = len(self.trials)
        for num_envs in self.plan.num_envs:
            for rate in self._next_rates(num_envs):
                for seed in self.plan.seeds:
                    self._add(self.plan.trial(num_envs, rate, seed))
        return len(self.trials) > before

    def _next_rates(self, num_envs: int) -> list[float]:
        """The rate to add for a batch size whose trials have all ended, if any."""
        by_rate = self._by_rate(num_envs, self.plan.seeds)
        best = _best(by_rate) if _all_over(by_rate) else None
        if best is None:
            return []
        rate = self.plan.learning_rates.beyond(list(by_rate), best, self.plan.base.agent.batch_size(num_envs))
        return [] if rate is None else [rate]

    def _add_best_seeds(self) -> bool:
        """Add the further seeds of the rates that lead at a batch size whose trials have all ended.

        Called again until no rate leads that lacks them: one that falls behind with its further seeds may leave the
        front to another, which has then been judged by its first seeds alone.
        """
        before = len(self.trials)
        for num_envs in self.plan.num_envs:
            for rate in self._best_rates(num_envs):
                for seed in self.plan.best_seeds:
                    config = self.plan.trial(num_envs, rate, seed)
                    if config.run_id not in self.trials:
                        self._add(config)
        return len(self.trials) > before

    def _best_rates(self, num_envs: int) -> list[float]:
        """The rates on the front of any goal; where none was reached, the one that came nearest."""
        by_rate = self._by_rate(num_envs)
        if not _all_over(by_rate):
            return []
        known = {rate: [t.progress for t in trials if t.sealed] for rate, trials in by_rate.items()}
        leading, best = leading_rates(known, self.plan.goals), _best(by_rate)
        return leading or ([] if best is None else [best])

    def hear(self, worker: Worker, event: Event) -> None:
        """Take in what a worker has to tell of one of the trials."""
        trial = self.trials[event.run_id]
        match event:
            case Starting(_, done, total):
                trial.starting = f"starting environments: {done / total:.0%}"
            case Recorded(_, record):
                trial.starting = ""
                trial.hear(record)
                if self.stop_early and not self._can_win(trial):
                    worker.tell("no goal is left that it could reach first")
            case Ended(_, status):
                trial.status = status
                if status == "stopped":
                    self.frames_saved += max(0, trial.config.frames - trial.frames)
            case Failed(_, reason):
                trial.status, trial.failure = None, reason

    def _can_win(self, trial: Trial) -> bool:
        """Whether the trial's learning rate can still come onto some goal's front; adaptive batches have none.

        No rival is certain against a further seed: it may yet be given further seeds of its own.
        """
        if trial.config.adaptive is not None:
            return True
        rates = self._by_rate(trial.config.environment.num_envs)
        seeds = rates.pop(trial.config.agent.learning_rate)
        others = [t.progress for t in seeds if t is not trial]
        rivals = [[t.progress for t in rival] for rival in rates.values()] * (trial.config.seed in self.plan.seeds)
        return rate_can_still_win(trial.progress, others, rivals, self.plan.goals)

    def _by_rate(self, num_envs: int, seeds: Collection[int] | None = None) -> dict[float, list[Trial]]:
        """The trials of one fixed batch size by learning rate, of all seeds or of some."""
        by_rate: dict[float, list[Trial]] = {}
        for trial in self.trials.values():
            config = trial.config
            counts = config.adaptive is None and (seeds is None or config.seed in seeds)
            if config.environment.num_envs == num_envs and counts:
                by_rate.setdefault(config.learning_rate, []).append(trial)
        return by_rate


def run_side_by_side(
    sweeps: Sequence[Sweep],
    on_change: Callable[[Sequence[Sweep]], None],
    *,
    asked_to_stop: Callable[[], bool] = lambda: False,
    deadline_seconds: float = math.inf,
) -> None:
    """Run all trials of sweeps that share their workers; the first sweep's come first.

    `on_change` hears of every event and about twice a second. When asked to stop, or at the deadline, every running
    trial saves itself at its next record and the rest is left for a later call. An exception ends the processes at
    once; then at most what came after the last checkpoints is lost.
    """
    begun = time.monotonic()
    workers = list({id(worker): worker for sweep in sweeps for worker in sweep.workers}.values())
    try:
        while sum(sweep.start_waiting() for sweep in sweeps):  # every one is asked, so not any()
            for worker, event in events(workers, timeout_seconds=0.5):
                next(sweep for sweep in sweeps if event.run_id in sweep.trials).hear(worker, event)
            on_change(sweeps)
            asked = asked_to_stop()
            if asked or time.monotonic() - begun > deadline_seconds:
                for sweep in sweeps:
                    sweep.interrupt("request" if asked else "deadline")
    except BaseException:
        for worker in workers:
            worker.close(kill=True)
        raise
    for worker in workers:
        worker.close()
    on_change(sweeps)


def _all_over(by_rate: dict[float, list[Trial]]) -> bool:
    return all(trial.sealed or trial.failure for trials in by_rate.values() for trial in trials)


def _best(by_rate: dict[float, list[Trial]]) -> float | None:
    """The rate of the greatest merit; None where no rate has a score yet, and nothing says which is better."""
    merit = {rate: _merit(trials) for rate, trials in by_rate.items()}
    best = max(merit, key=lambda rate: merit[rate])
    return None if math.isinf(merit[best][2]) else best


def _merit(trials: list[Trial]) -> tuple[float, float, float]:
    """How good a learning rate is: goals reached, then how soon the last of them, then the score at the end."""
    goals = sum(len(t.goals.reached) for t in trials) / len(trials)
    lasts = [math.log(max(t.progress.reached.values())) for t in trials if t.goals.reached]
    scores = [t.goals.smoothed for t in trials if math.isfinite(t.goals.smoothed)]
    soon = -sum(lasts) / len(lasts) if lasts else -math.inf
    return goals, soon, sum(scores) / len(scores) if scores else -math.inf
