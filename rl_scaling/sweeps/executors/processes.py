"""A process per slot, each running one job at a time, joined to the sweep by a pipe.

A worker ignores Ctrl-C and SIGTERM, which a terminal or a batch system sends to the whole group: the sweep tells it to
save itself. If the sweep is gone, the worker finds the pipe closed at its next update, saves itself and ends. The jobs
of a worker that dies are handed to another one, which resumes them from their checkpoints.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from rl_scaling.domains.base import Control
from rl_scaling.sweeps.executors.serial import one_line
from rl_scaling.sweeps.trial import Job, Requests, RunEnded, RunEvent, RunFailed, run_job

MOST_RETRIES = 2  # of a job whose worker died
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

    def events(self, timeout_seconds: float) -> Iterator[tuple[str, RunEvent]]:
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
        with _ignoring_signals():
            self._process.start()
        theirs.close()

    def tell(self, *message: Any) -> None:
        """Ask something of the running job."""
        with contextlib.suppress(OSError):  # a process that has died is noticed by `receive`
            self.connection.send(message)

    def receive(self) -> Iterator[tuple[str, RunEvent]]:
        """What there is to hear.

        Raises:
            EOFError, OSError: the process has died.
        """
        run_id, event = self.connection.recv()
        if isinstance(event, RunEnded | RunFailed):
            self._left.discard(run_id)
        if not self._left:
            self.job = None
        yield run_id, event

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
def _ignoring_signals() -> Generator[None]:
    """What is inherited: a signal that comes while the child is still importing is the parent's business too."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(connection: Connection) -> None:
    """The worker process: jobs until the connection closes."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    try:
        while True:
            message = connection.recv()
            if message[0] == "run":  # what came too late for the job before is of no use
                _run(connection, Job.from_plain(message[1]))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _run(connection: Connection, job: Job) -> None:
    requests = Requests()

    def asked() -> bool:
        """Whether to interrupt; once the sweep is gone, nobody waits for the rest."""
        try:
            while connection.poll():
                match connection.recv():
                    case ("interrupt",):
                        return True
                    case ("stop", run_id, reason):
                        requests.reasons.setdefault(run_id, reason)
        except (EOFError, OSError):
            return True
        return False

    requests.control = Control(asked)
    left = set(job.run_ids)
    try:
        for run_id, event in run_job(job, requests):
            if isinstance(event, RunEnded):
                left.discard(run_id)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it saves itself all the same
                connection.send((run_id, event))
    except Exception as error:  # one job's failure must not end the others
        for run_id in sorted(left):
            connection.send((run_id, RunFailed(one_line(error))))
