"""One trial, for every domain: opened, appended to, checkpointed and sealed here and nowhere else."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rl_scaling.analysis import GoalTracker
from rl_scaling.config import ConfigError, RunDescription, to_dict
from rl_scaling.domains import find_domain
from rl_scaling.domains.base import ON_ONE_THREAD, CannotResume, Checkpoint, Control, Domain, Ended, Hardware, Starting
from rl_scaling.records import Identity, Record, Status
from rl_scaling.store import RunTakenError, RunWriter, Store, StoreError
from rl_scaling.store.provenance import provenance

CHECKPOINT_SECONDS = 60.0
REACHED_ALL = "every goal is reached"
_DELETE_IT = "delete it, and the run begins anew (its rows are kept aside)"
# The checkpoint of the last record, among those that stay with a run.
AT_END = "end"


@dataclass(frozen=True)
class Job:
    """Runs of one domain that train together, and where they are kept; plain data can be made of it.

    Attributes:
        configs: one run, or several of one group of `Domain.together`.
        store: the folder of the store.
        goals: with `stop_at_goals`, a run that has reached them all is stopped.
        reopen: run ids of sealed runs of which more is asked.
        replace: run ids that begin anew; what there was is moved aside.
        initial: state from which runs without a checkpoint of their own begin; None: from the beginning.
        stop_at: frames or examples at which a run is stopped, whatever the length that its schedules follow.
    """

    configs: tuple[RunDescription, ...]
    store: Path
    hardware: Hardware = ON_ONE_THREAD
    goals: tuple[float, ...] = ()
    stop_at_goals: bool = False
    reopen: frozenset[str] = frozenset()
    replace: frozenset[str] = frozenset()
    initial: Mapping[str, Any] | None = None
    stop_at: float = math.inf

    @property
    def run_ids(self) -> list[str]:
        return [config.run_id for config in self.configs]

    def to_plain(self) -> dict[str, Any]:
        """For another process."""
        plain = dict(vars(self))
        plain["configs"] = [to_dict(config) for config in self.configs]
        return plain | {"domain": self.configs[0].domain}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Job:
        """The inverse of `to_plain`."""
        domain = find_domain(plain["domain"])
        rest = {name: value for name, value in plain.items() if name not in ("domain", "configs")}
        return cls(configs=tuple(domain.parse(config) for config in plain["configs"]), **rest)


@dataclass(frozen=True)
class RunEnded:
    """A run is sealed, or left for a later call; "running": another process has it, as `note` says."""

    status: Status
    note: str = ""


@dataclass(frozen=True)
class RunFailed:
    """A run could not be run; `reason` is one line."""

    reason: str


RunEvent = Starting | Record | RunEnded | RunFailed


@dataclass
class Requests:
    """What is asked of a job while it runs.

    Attributes:
        control: what its domain looks at.
        reasons: by run id, why a run is to be stopped for good.
    """

    control: Control = field(default_factory=Control)
    reasons: dict[str, str] = field(default_factory=dict)


def tracker_of(identity: Identity, goals: Sequence[float]) -> GoalTracker:
    """Follows a run of any domain; a score is smoothed over episodes, a loss is compared as it is."""
    measure = identity.measure
    horizon = {} if measure.over_episodes else {"horizon": 1e-9}
    return GoalTracker(goals, direction=measure.direction, **horizon)


def track(tracker: GoalTracker, record: Record, identity: Identity) -> Sequence[float]:
    """Hand a row to a run's tracker; the goals that were reached by it."""
    episodes = getattr(record, "episodes", 1)
    return tracker.update(record.updates, units_of(record), getattr(record, identity.quantity), episodes)


def units_of(record: Record) -> int:
    """Frames, examples or tokens so far."""
    return record.frames if hasattr(record, "frames") else record.examples  # pyright: ignore[reportAttributeAccessIssue]


def run_job(job: Job, requests: Requests) -> Iterator[tuple[str, RunEvent]]:
    """Run a job against its store: (run id, what happened), for each run until it ended.

    Runs resume from their checkpoints, without one they begin anew; which of them train together is the domain's to say
    (`Domain.together`, `Domain.out_of_step`). Closed early, or left by an exception, it leaves runs that can be
    resumed. A run that another process writes, or has sealed in the meantime, ends as "running"; one whose checkpoint
    is damaged, or of another network, fails by itself.

    Raises:
        ConfigError: runs that cannot be run; nothing is stored of them.
        StoreError: a full disk, damaged rows.
    """
    first = job.configs[0]
    domain: Domain[Any] = find_domain(first.domain)
    store = Store(job.store)
    job = replace(job, hardware=domain.settled(job.configs, job.hardware)[0])
    domain.refuse(job.configs, job.hardware, 1)
    origin = provenance(**{**asdict(job.hardware), "device": domain.device(job.hardware)})
    over: set[str] = set()
    with contextlib.ExitStack() as stack:
        writers: dict[str, RunWriter] = {}
        for config in job.configs:
            try:
                writers[config.run_id] = stack.enter_context(_open(store, config, origin, job))
            except RunTakenError as error:
                over.add(config.run_id)
                yield config.run_id, RunEnded("running", str(error))
        states: dict[str, Mapping[str, Any] | None] = {}
        for run_id, writer in writers.items():
            try:
                states[run_id] = _load_checkpoint(writer) or _initial(job)
            except StoreError as error:
                over.add(run_id)
                yield run_id, RunFailed(str(error))
        configs = [config for config in job.configs if config.run_id in states]
        for left in _in_step(configs, states) if not domain.out_of_step else [configs]:
            for part in domain.together(left, job.hardware):
                if requests.control.interrupt:
                    break
                writers_of_part = [writers[c.run_id] for c in part]
                for run_id, event in _Part(job, part, writers_of_part, requests).run(domain, states):
                    over.update({run_id} if isinstance(event, RunEnded | RunFailed) else ())
                    yield run_id, event
        for run_id in [config.run_id for config in job.configs if config.run_id not in over]:
            yield run_id, RunEnded("interrupted")


def _open(store: Store, config: RunDescription, origin: dict[str, Any], job: Job) -> RunWriter:
    run_id = config.run_id
    reopen = run_id in job.reopen and not _is_whole(store, config)
    return store.open_run(config, origin, replace=run_id in job.replace, reopen=reopen)


def _is_whole(store: Store, config: RunDescription) -> bool:
    """Whether a run has all that it may take: another sweep may have resumed it since more was asked of it."""
    return _units_kept(store, config) >= config.length


def _units_kept(store: Store, config: RunDescription) -> int:
    rows = store.read_rows(config.run_id)
    return units_of(rows[-1]) if rows else 0


def _updates(state: Mapping[str, Any] | None) -> int:
    return -1 if state is None else int(state["updates"])


def _in_step(
    configs: Sequence[RunDescription], states: Mapping[str, Mapping[str, Any] | None]
) -> Iterator[list[RunDescription]]:
    """Runs that are at the same number of updates, those that have most to do first."""
    for updates in sorted({_updates(states[config.run_id]) for config in configs}):
        yield [config for config in configs if _updates(states[config.run_id]) == updates]


def _initial(job: Job) -> Mapping[str, Any] | None:
    return None if job.initial is None else {"updates": 0, "state": job.initial}


def _load_checkpoint(writer: RunWriter) -> Mapping[str, Any] | None:
    """What `_save` kept; None where there is nothing to resume from.

    Raises:
        StoreError: the file is damaged.
    """
    return None if writer.checkpoint is None else load_checkpoint(writer.checkpoint)


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """A checkpoint's "updates" and "state": what `Domain.run` takes to resume.

    Raises:
        StoreError: the file is damaged.
    """
    import torch

    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if "updates" not in state:  # of schema 2, whose only checkpoints are of reinforcement learning
            state = {"updates": state["progress"]["updates"], "state": state}
    except Exception as error:
        raise StoreError(f"{path} is damaged: {_DELETE_IT}") from error
    return state


class _Part:
    """Runs of a job that train together."""

    def __init__(
        self, job: Job, configs: Sequence[RunDescription], writers: Sequence[RunWriter], requests: Requests
    ) -> None:
        self.job, self.configs, self.writers = job, configs, writers
        self.requests, self.control = requests, requests.control
        self.control.stop.clear()
        self.control.goals = job.goals
        self.trackers = [tracker_of(config.identity, job.goals) for config in configs]
        self.over: set[int] = set()
        self._to_keep: dict[int, list[str]] = {}
        self._saved = time.monotonic()

    def run(
        self, domain: Domain[Any], states: Mapping[str, Mapping[str, Any] | None]
    ) -> Generator[tuple[str, RunEvent], None, None]:
        for writer, tracker, config in zip(self.writers, self.trackers, self.configs, strict=True):
            writer.keep_rows(_updates(states[config.run_id]))
            for row in writer.rows:
                track(tracker, row, config.identity)
        found = [states[config.run_id] for config in self.configs]
        resume = [None if state is None else state["state"] for state in found]
        events = domain.run(self.configs, resume, self.control, self.job.hardware)
        begun = False
        try:
            with contextlib.closing(events):  # pyright: ignore[reportArgumentType]
                for number, event in events:
                    begun = True
                    if number in self.over:  # a checkpoint that was asked for came with the last one
                        continue
                    told = self._take(number, event)
                    if told is not None:
                        yield self.configs[number].run_id, told
        except ConfigError:  # a run that cannot be started leaves nothing behind
            for writer in self.writers if not begun else ():
                writer.discard()
            raise
        for number in range(len(self.configs)):  # of a domain that has no checkpoints
            if number not in self.over:
                yield self.configs[number].run_id, self._leave(number)

    def _take(self, number: int, event: Any) -> RunEvent | None:
        match event:
            case Starting():
                return event
            case Ended(status, note):
                self.writers[number].seal(status, note)
                self.over.add(number)
                return RunEnded(status)
            case CannotResume():
                path = self.writers[number].checkpoint
                self.writers[number].close()
                self.over.add(number)
                return RunFailed(f"{path} does not fit this run's network: {_DELETE_IT}")
            case Checkpoint():
                kept = {"updates": event.updates, "state": dict(event.state)}
                # First what stays: killed in between, the run comes here again.
                for place in self._to_keep.pop(number, ()):
                    self.writers[number].keep_checkpoint(place, lambda path: _save(kept, path))
                self.writers[number].save_checkpoint(lambda path: _save(kept, path))
                self._saved = time.monotonic()
                stopped = number in self.control.stop
                return self._leave(number) if stopped or self.control.interrupt else None
            case _:
                self._append(number, event)
                return event

    def _append(self, number: int, record: Record) -> None:
        self.writers[number].append(record)
        config, tracker = self.configs[number], self.trackers[number]
        reached = track(tracker, record, config.identity)
        if config.keeps_checkpoints:
            places = [f"{goal:g}" for goal in reached]
            places += [AT_END] if units_of(record) >= min(config.length, self.job.stop_at) else []
            if places:
                self._to_keep.setdefault(number, []).extend(places)
                self.control.checkpoint = True
        if self.job.stop_at_goals and self.job.goals and len(tracker.reached) == len(set(self.job.goals)):
            self.requests.reasons.setdefault(self.configs[number].run_id, REACHED_ALL)
        if self.job.stop_at <= units_of(record) < self.configs[number].length:
            reason = f"asked to stop at {self.job.stop_at:,.0f} {config.identity.unit}"
            self.requests.reasons.setdefault(self.configs[number].run_id, reason)
        if self.configs[number].run_id in self.requests.reasons:
            self.control.stop.add(number)
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.control.checkpoint = True
            self._saved = time.monotonic()

    def _leave(self, number: int) -> RunEnded:
        """A run that does not train on: stopped for good, or interrupted."""
        self.over.add(number)
        reason = self.requests.reasons.get(self.configs[number].run_id)
        if reason is None:
            self.writers[number].close()
            return RunEnded("interrupted")
        self.writers[number].seal("stopped", reason)
        return RunEnded("stopped")


def _save(state: Mapping[str, Any], path: Path) -> None:
    import torch

    torch.save(state, path)


def run(  # noqa: PLR0913  # all but two are options, each of one kind of caller
    config: RunDescription,
    store: Store | Path | str,
    *,
    hardware: Hardware = ON_ONE_THREAD,
    replace: bool = False,
    goals: Sequence[float] = (),
    initial: Mapping[str, Any] | None = None,
    stop_at: float = math.inf,
    listen: Callable[[RunEvent], None] = lambda event: None,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Status:
    """Train one run of any domain, or resume it, and keep it.

    Args:
        config: the run.
        store: where it is kept, in a folder named after its run id.
        hardware: what it runs on.
        replace: run again what is done; the old run is moved aside.
        goals: values of its quantity whose first reach is of interest.
        initial: see `Job`.
        stop_at: frames or examples after which it is stopped, of a longer run whose schedules it follows; a later call
            with more resumes it.
        listen: hears every record, and how far the start is.
        asked_to_stop: asked after every update; once true, the run saves itself and the same call resumes it.

    Returns:
        "done", "diverged", "stopped" or "interrupted"; a run that is done already is left as it is.

    Raises:
        ConfigError: a run that this machine cannot run.
        StoreError: another process writes it, its checkpoint is damaged or of another network, or the disk is full.

    >>> from rl_scaling.nqm import NQMConfig
    >>> config = NQMConfig(optimizer="sgd", batch_size=8, learning_rate=0.01, updates=100, dimension=100)
    >>> run(config, getfixture("tmp_path"))
    'done'
    """
    kept = store if isinstance(store, Store) else Store(store)
    status = kept.status(config.run_id)
    more = status == "stopped" and math.isfinite(stop_at) and _units_kept(kept, config) < min(stop_at, config.length)
    if status in ("done", "diverged", "stopped") and not (replace or more):
        return status
    again, reopened = (frozenset([config.run_id] if asked else []) for asked in (replace, more))
    rest: dict[str, Any] = {"goals": tuple(goals), "stop_at": stop_at, "initial": initial}
    job = Job((config,), kept.root, hardware, reopen=reopened, replace=again, **rest)
    for _, event in run_job(job, Requests(Control(asked_to_stop))):
        if isinstance(event, RunFailed):
            raise StoreError(event.reason)
        listen(event)
        if isinstance(event, RunEnded):
            status = event.status
            if status == "running":
                raise RunTakenError(event.note)
    if status is None:
        raise ConfigError(f"run {config.run_id} trained nothing: report this as a bug")
    return status
