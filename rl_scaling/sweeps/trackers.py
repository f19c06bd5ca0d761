"""Where the records of runs may go beside the store: TensorBoard and Weights & Biases.

The store remains the one place that results are read from. What a tracker needs is imported when one is asked for.
"""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from rl_scaling.config import ConfigError
from rl_scaling.records import Record, to_row
from rl_scaling.store import RunInfo, Store
from rl_scaling.sweeps.trial import RunEnded, RunFailed

if TYPE_CHECKING:
    from rl_scaling.sweeps.sweep import Sweep


class Tracker(Protocol):
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
    """The trackers of any number of runs, opened at the first record of each, for the store knows a run once it began.

    Args:
        tensorboard: a folder of event files; each run's own go into a folder of its name there. None: not asked for.
        wandb: a project. None: not asked for.
    """

    def __init__(self, tensorboard: Path | None, wandb: str | None) -> None:
        self._tensorboard, self._wandb = tensorboard, wandb
        self._open: dict[str, list[Tracker]] = {}

    def write(self, store: Store, run_id: str, record: Record) -> None:
        """Hand a record of a run to every tracker.

        Raises:
            ConfigError: a tracker cannot start.
        """
        if run_id not in self._open:
            self._open[run_id] = self._trackers_of(store, run_id)
        for tracker in self._open[run_id]:
            tracker.write(record)

    def finish(self, run_id: str) -> None:
        """A run is over, or left for later."""
        for tracker in self._open.pop(run_id, []):
            tracker.close()

    def _trackers_of(self, store: Store, run_id: str) -> list[Tracker]:
        if self._tensorboard is None and self._wandb is None:
            return []
        info = store.info(run_id)
        made: list[Tracker] = []
        if info and self._tensorboard is not None:
            made.append(TensorBoardTracker(info, self._tensorboard))
        if info and self._wandb is not None:
            made.append(WandbTracker(info, self._wandb))
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for run_id in list(self._open):
            self.finish(run_id)


class SweepTrackers(Trackers):
    """The trackers of the trials of sweeps."""

    def hear(self, sweep: Sweep, run_id: str, event: Any) -> None:
        """Take what happened to a trial."""
        if isinstance(event, Record):
            self.write(sweep.store, run_id, event)
        elif isinstance(event, RunEnded | RunFailed):
            self.finish(run_id)


class TensorBoardTracker:
    """An event file with every number of every record over frames or examples, and the run's config as text.

    Args:
        info: the run.
        folder: of all runs; `tensorboard --logdir` takes it.
    """

    def __init__(self, info: RunInfo, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._unit = info.identity.unit
        self._writer = SummaryWriter(str(folder / info.run_id))
        self._writer.add_text("config", "    " + json.dumps(info.config, indent=2).replace("\n", "\n    "))

    def write(self, record: Record) -> None:
        """See `Tracker`."""
        numbers = known_numbers(record)
        total = numbers.get(self._unit, numbers.get("examples", 0))
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, int(total))

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WandbTracker:
    """A run with every number of every record over frames or examples, grouped by task.

    Whether it goes to a server is wandb's own affair: WANDB_MODE=offline keeps it in WANDB_DIR until `wandb sync`.

    Args:
        info: the run; its id is the run's id there, so that a run that resumes is one run there too.
        project: the project's name.

    Raises:
        ConfigError: it cannot start.
    """

    def __init__(self, info: RunInfo, project: str) -> None:
        import wandb

        identity = info.identity
        name = f"{identity.task} B={identity.batch_size:,} lr={identity.learning_rate:.3g}"
        try:
            self._run = wandb.init(
                project=project,
                id=info.run_id,
                name=name,
                group=identity.task,
                config=info.config,
                resume="allow",
                reinit="create_new",
            )
        except wandb.Error as error:
            first = str(error).splitlines()[0]
            raise ConfigError(f"wandb cannot start: {first}; WANDB_MODE=offline needs no account") from error
        self._run.define_metric("*", step_metric=identity.unit)

    def write(self, record: Record) -> None:
        """See `Tracker`."""
        self._run.log(known_numbers(record))

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()
