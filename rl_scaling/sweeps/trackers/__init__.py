"""Where the records of a run may go beside the store: trackers that people already look at.

The store remains the one place that results are read from. A sink is handed every record of one run in order and is
closed at the end; what it needs is imported when one is made, so that nothing is needed where none is asked for.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, Self

from rl_scaling.config import ConfigError
from rl_scaling.records import Record, to_row
from rl_scaling.store import RunInfo, Store


class Sink(Protocol):
    """Takes the records of one run."""

    def write(self, record: Record) -> None:
        """Take a record; earlier ones have fewer updates."""
        ...

    def close(self) -> None:
        """Finish the run; what was taken is kept."""
        ...


def known_numbers(record: Record) -> dict[str, float]:
    """The finite numbers of a record by name: trackers draw NaN as zero or not at all."""
    return {name: value for name, value in to_row(record).items() if math.isfinite(value)}


def require_installed(**asked: object) -> None:
    """Refuse what cannot be had, by the names of packages and whether each is asked for (not None).

    Raises:
        ConfigError: one that is asked for is not installed.
    """
    for package, wanted in asked.items():
        if wanted is not None and find_spec(package) is None:
            raise ConfigError(f"--{package} needs a package: pip install 'rl-scaling[{package}]'")


class Trackers:
    """The sinks of one run, opened at its first record, for the store knows a run once it has begun.

    Args:
        store: holds the run.
        run_id: of the run.
        tensorboard: a folder of event files; the run's own go into a folder of its name there. None: not asked for.
        wandb: a project. None: not asked for.
    """

    def __init__(self, store: Store, run_id: str, tensorboard: Path | None, wandb: str | None) -> None:
        self._store, self._run_id = store, run_id
        self._tensorboard, self._wandb = tensorboard, wandb
        self._sinks: list[Sink] | None = None

    def write(self, record: Record) -> None:
        """Hand a record to every sink.

        Raises:
            ConfigError: a tracker cannot start.
        """
        if self._sinks is None:
            info = self._store.info(self._run_id)
            self._sinks = _open(info, self._tensorboard, self._wandb) if info else []
        for sink in self._sinks:
            sink.write(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sink in self._sinks or []:
            sink.close()


def _open(info: RunInfo, tensorboard: Path | None, wandb: str | None) -> list[Sink]:
    sinks: list[Sink] = []
    if tensorboard is not None:
        from rl_scaling.sweeps.trackers.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(info, tensorboard))
    if wandb is not None:
        from rl_scaling.sweeps.trackers.wandb import WandbSink

        sinks.append(WandbSink(info, wandb))
    return sinks
