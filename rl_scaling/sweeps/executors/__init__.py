"""Who runs the jobs of a sweep: this process, a process per core, or an engine for many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Protocol

from rl_scaling.config import ConfigError
from rl_scaling.sweeps.trial import Job, RunEvent


class Executor(Protocol):
    """Hands out jobs and brings back what becomes of them; it survives the death of what runs them.

    Attributes:
        slots: jobs that run side by side.
    """

    slots: int

    @property
    def running(self) -> list[Job]:
        """Jobs that are not over."""
        ...

    def start(self, job: Job) -> None:
        """Begin a job; only called while fewer than `slots` are running."""
        ...

    def events(
        self, timeout_seconds: float, asked_to_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[str, RunEvent]]:
        """(run id, what happened) of any job, waiting at most `timeout_seconds` for the first.

        Every run of a job ends with `RunEnded` or `RunFailed`, and the job is over when its last run is. An executor
        that cannot keep to the time, as jobs run in this very process, looks at `asked_to_stop` after every update.
        """
        ...

    def stop(self, run_id: str, reason: str) -> None:
        """Have a run stop for good at its next record, sealed with this reason."""
        ...

    def interrupt(self) -> None:
        """Have every job save itself at its next update and end."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """Give up what jobs ran on: in good order, or at once."""
        ...


# An executor of one's own is one line here: it is made with the number of jobs side by side.
EXECUTORS = {
    "serial": "rl_scaling.sweeps.executors.serial:SerialExecutor",
    "processes": "rl_scaling.sweeps.executors.processes:ProcessExecutor",
}


def make_executor(name: str, slots: int) -> Executor:
    """The executor of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in EXECUTORS:
        raise ConfigError(f"no executor {name!r}: {', '.join(EXECUTORS)}")
    module, found = EXECUTORS[name].split(":")
    return getattr(import_module(module), found)(slots)
