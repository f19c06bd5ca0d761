"""Worker processes that run one trial at a time, one after the other.

A worker is a fresh process (emulators and torch's threads do not survive a fork) that ignores Ctrl-C: the parent tells
it when to stop. If the parent is gone, the next record cannot be sent and the worker ends; its run stays readable.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from rl_scaling.config import to_dict
from rl_scaling.domains.rl.config import RunConfig, run_config_from_dict
from rl_scaling.records import Status, TrainingRecord


@dataclass(frozen=True)
class Job:
    """One trial to run; plain data, for it crosses to another process."""

    config: RunConfig
    store: Path
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True)
class Starting:
    """The environments are starting: `done` of `total` steps of that are over."""

    run_id: str
    done: int
    total: int


@dataclass(frozen=True)
class Recorded:
    """A row was added to the run."""

    run_id: str
    record: TrainingRecord


@dataclass(frozen=True)
class Ended:
    """The run is sealed, or left for a later call."""

    run_id: str
    status: Status


@dataclass(frozen=True)
class Failed:
    """The trial could not be run; `reason` is one line."""

    run_id: str
    reason: str


Event = Starting | Recorded | Ended | Failed


class Worker:
    """One process, started with the first job."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self.job: Job | None = None

    def start(self, job: Job) -> None:
        """Hand the process a job; a new process if there is none alive."""
        self.job = job
        message = ("run", to_dict(job.config), str(job.store), job.device, job.threads)
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
        # Inherited: a Ctrl-C while the child is still importing is the parent's business too.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def tell(self, verdict: str) -> None:
        """Have the running trial hear `verdict` (see `rl_scaling.sweeps`) at its next record."""
        if self.job is not None:
            with contextlib.suppress(OSError):  # a process that has died is reported by `receive`
                self.connection.send(("verdict", verdict))

    def receive(self) -> Event:
        """The next thing that happened to the job; a process that died is reported as `Failed`."""
        assert self.job is not None
        assert self._connection is not None
        run_id = self.job.config.run_id
        try:
            event: Event = self._connection.recv()
        except (EOFError, OSError):
            assert self._process is not None
            self._process.join()
            event = Failed(run_id, f"its process died with exit code {self._process.exitcode} (out of memory?)")
            self._process = None
        if isinstance(event, Ended | Failed):
            self.job = None
        return event

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


def events(workers: Iterable[Worker], timeout_seconds: float) -> Iterator[tuple[Worker, Event]]:
    """Whatever the busy workers have to tell, waiting at most `timeout_seconds` for the first."""
    busy = {worker.connection: worker for worker in workers if worker.job is not None}
    for connection in wait(list(busy), timeout_seconds):
        assert isinstance(connection, Connection)
        worker = busy[connection]
        yield worker, worker.receive()


def _work(connection: Connection) -> None:
    """The worker process: trials until the connection closes."""
    try:
        while True:
            message = connection.recv()
            if message[0] == "run":
                connection.send(_run(connection, *message[1:]))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _run(connection: Connection, config: dict[str, Any], store: str, device: str, threads: int) -> Event:
    # torch is imported in the worker alone.
    from rl_scaling.store import Store
    from rl_scaling.sweeps.trial import run_trial

    run_config = run_config_from_dict(config)
    run_id = run_config.run_id

    def listen(record: TrainingRecord) -> str | None:
        connection.send(Recorded(run_id, record))
        verdict = None
        while connection.poll():
            verdict = connection.recv()[1]
        return verdict

    try:
        status = run_trial(
            run_config,
            Store(Path(store)),
            device=device,
            threads=threads,
            listen=listen,
            starting=lambda done, total: connection.send(Starting(run_id, done, total)),
        )
    except (BrokenPipeError, ConnectionResetError, EOFError):
        raise
    except Exception as error:  # one trial's failure must not end the others
        return Failed(run_id, f"{type(error).__name__}: {error}".splitlines()[0])
    return Ended(run_id, status)
