"""A process per slot, each running one job at a time, joined to the sweep by a pipe.

A worker ignores Ctrl-C and SIGTERM, which a terminal or a batch system sends to the whole group: the sweep tells it to
save itself. If the sweep is gone, the worker finds the pipe closed at its next update, saves itself and ends. The jobs
of a worker that dies are handed to another one, which resumes them from their checkpoints.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from rl_scaling.domains.base import Control
from rl_scaling.sweeps.executors.serial import one_line
from rl_scaling.sweeps.trial import Job, Requests, RunEnded, RunEvent, RunFailed, run_job

MOST_RETRIES = 2  # of a job whose worker died
# Looking into a pipe takes some 10 microseconds, as much as a tenth of an update of a small problem.
_POLL_SECONDS = 0.02
_MOST_AT_ONCE = 100  # events of one job, before others are heard
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessExecutor:
    """See `rl_scaling.sweeps.executors.Executor`.

    Args:
        slots: processes side by side; they are started with their first jobs, and kept.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._workers = [_Worker() for _ in range(slots)]
        self._deaths: Counter[str] = Counter()
        self._interrupted = False

    @property
    def running(self) -> list[Job]:
        """See `Executor.running`."""
        return [worker.job for worker in self._workers if worker.job is not None]

    def start(self, job: Job) -> None:
        """See `Executor.start`."""
        next(worker for worker in self._workers if worker.job is None).start(job)

    def events(
        self, timeout_seconds: float, asked_to_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[str, RunEvent]]:
        """See `Executor.events`."""
        busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
        for connection in wait(list(busy), timeout_seconds):
            assert isinstance(connection, Connection)
            worker = busy[connection]
            try:
                yield from worker.receive()
            except (EOFError, OSError):
                yield from self._after_death(worker)

    def _after_death(self, worker: _Worker) -> Iterator[tuple[str, RunEvent]]:
        """Hand on what a dead worker had left, unless it killed one too many."""
        code, left = worker.bury()
        assert worker.job is not None
        job, worker.job = worker.job, None
        again = []
        for config in job.configs:
            if config.run_id not in left:
                continue
            self._deaths[config.run_id] += 1
            if self._interrupted:
                yield config.run_id, RunEnded("interrupted")
            elif self._deaths[config.run_id] > MOST_RETRIES:
                died = f"its process died with exit code {code} {self._deaths[config.run_id]} times (out of memory?)"
                yield config.run_id, RunFailed(died)
            else:
                again.append(config)
        if again:
            worker.start(Job(**{**vars(job), "configs": tuple(again), "replace": frozenset()}))

    def stop(self, run_id: str, reason: str) -> None:
        """See `Executor.stop`."""
        for worker in self._workers:
            if worker.job is not None and run_id in worker.job.run_ids:
                worker.tell("stop", run_id, reason)

    def interrupt(self) -> None:
        """See `Executor.interrupt`."""
        self._interrupted = True
        for worker in self._workers:
            if worker.job is not None:
                worker.tell("interrupt")

    def close(self, *, kill: bool = False) -> None:
        """See `Executor.close`."""
        for worker in self._workers:
            worker.close(kill=kill)


class _Worker:
    """One process, started with its first job."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self.job: Job | None = None
        self._left: set[str] = set()

    def start(self, job: Job) -> None:
        """Hand the process a job; a new process if there is none alive."""
        self.job, self._left = job, set(job.run_ids)
        message = ("run", job.to_plain())
        if self._process is not None and self._process.is_alive():
            with contextlib.suppress(OSError):  # it may have died a moment ago
                self.connection.send(message)
                return
        self._spawn()
        self.connection.send(message)

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        resource_tracker.ensure_running()  # which unblocks signals when it is started
        with _blocking_signals():
            self._process.start()
        theirs.close()

    def tell(self, *message: Any) -> None:
        """Ask something of the running job."""
        with contextlib.suppress(OSError):  # a process that has died is noticed by `receive`
            self.connection.send(message)

    def receive(self) -> Iterator[tuple[str, RunEvent]]:
        """All that there is to hear, one thing at least.

        Raises:
            EOFError, OSError: the process has died.
        """
        for _ in range(_MOST_AT_ONCE):
            run_id, event = self.connection.recv()
            if isinstance(event, RunEnded | RunFailed):
                self._left.discard(run_id)
            if not self._left:
                self.job = None
            yield run_id, event
            if self.job is None or not self.connection.poll():
                return

    def bury(self) -> tuple[int | None, set[str]]:
        """The exit code of a process that has died, and the runs it left."""
        assert self._process is not None
        self._process.join()
        code, self._process = self._process.exitcode, None
        return code, set(self._left)

    def close(self, *, kill: bool = False) -> None:
        """End the process: at once, or when its connection is found closed."""
        if self._process is None:
            return
        if kill:
            self._process.kill()
        if self._connection is not None:
            self._connection.close()
        self._process.join(timeout=10)

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection


@contextlib.contextmanager
def _blocking_signals() -> Generator[None]:
    """A child inherits it: a signal that comes while it is still importing waits, and is the sweep's business alone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection) -> None:
    """The worker process: jobs until the connection closes."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    inbox = _Inbox(connection)
    try:
        while True:
            _run(connection, inbox.next_job(), inbox)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _run(connection: Connection, job: Job, inbox: _Inbox) -> None:
    left = set(job.run_ids)
    try:
        for run_id, event in run_job(job, inbox.requests):
            if isinstance(event, RunEnded | RunFailed):
                left.discard(run_id)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it saves itself all the same
                connection.send((run_id, event))
    except Exception as error:  # one job's failure must not end the others
        for run_id in sorted(left):
            connection.send((run_id, RunFailed(one_line(error))))


class _Inbox:
    """What the sweep sends to a worker: jobs, and what is asked of the one that runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._job: dict[str, Any] | None = None
        self._begin()

    def _begin(self) -> None:
        self.requests, self._next_look = Requests(Control(self._asked)), -math.inf

    def next_job(self) -> Job:
        """The next job, once there is one; what came too late for the job before is of no use.

        Raises:
            EOFError, OSError: the sweep is gone.
        """
        while self._job is None:
            self._take()
        job, self._job = Job.from_plain(self._job), None
        self._begin()
        return job

    def _asked(self) -> bool:
        """Whether the job is to be interrupted; once the sweep is gone, nobody waits for the rest."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _POLL_SECONDS
        try:
            while self._job is None and self._connection.poll():
                if self._take():
                    return True
        except (EOFError, OSError):
            return True
        return False

    def _take(self) -> bool:
        """Take in a message; whether it asks for an interrupt."""
        match self._connection.recv():
            case ("run", job):  # all runs of the job before have ended, and it is about to return
                self._job = job
            case ("stop", run_id, reason):
                self.requests.reasons.setdefault(run_id, reason)
            case ("interrupt",):
                return True
        return False
