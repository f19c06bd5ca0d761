"""One job after the other, in this process: to debug, and where processes are not wanted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from rl_scaling.domains.base import Control
from rl_scaling.sweeps.trial import Job, Requests, RunEnded, RunEvent, RunFailed, run_job


class SerialExecutor:
    """See `rl_scaling.sweeps.executors.Executor`; `slots` is 1 whatever is asked for."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = 1
        self.running: list[Job] = []
        self._requests = Requests()
        self._interrupted = False
        self._asked: Callable[[], bool] = lambda: False
        self._steps: Generator[tuple[str, RunEvent], None, None] | None = None

    def start(self, job: Job) -> None:
        """See `Executor.start`."""
        self.running = [job]
        self._requests = Requests(Control(lambda: self._interrupted or self._asked()))
        self._steps = _guarded(job, self._requests)

    def events(
        self, timeout_seconds: float, asked_to_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[str, RunEvent]]:
        """See `Executor.events`: one event, for it comes from the training itself."""
        self._asked = asked_to_stop
        if self._steps is None:
            return
        step = next(self._steps, None)
        if step is None:
            self.running, self._steps = [], None
        else:
            yield step

    def stop(self, run_id: str, reason: str) -> None:
        """See `Executor.stop`."""
        self._requests.reasons.setdefault(run_id, reason)

    def interrupt(self) -> None:
        """See `Executor.interrupt`."""
        self._interrupted = True

    def close(self, *, kill: bool = False) -> None:
        """See `Executor.close`."""
        if self._steps is not None:
            self._steps.close()
        self.running, self._steps = [], None


def _guarded(job: Job, requests: Requests) -> Generator[tuple[str, RunEvent], None, None]:
    left = set(job.run_ids)
    try:
        for run_id, event in run_job(job, requests):
            if isinstance(event, RunEnded | RunFailed):
                left.discard(run_id)
            yield run_id, event
    except Exception as error:  # one job's failure must not end the others
        for run_id in sorted(left):
            yield run_id, RunFailed(one_line(error))


def one_line(error: BaseException) -> str:
    """What went wrong, short enough for a table."""
    text = str(error).splitlines()
    name = type(error).__name__
    return f"{name}: {text[0]}" if text and name not in ("ConfigError", "StoreError") else (text or [name])[0]
