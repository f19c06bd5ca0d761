"""Records as TensorBoard scalars."""

from __future__ import annotations

import json
from pathlib import Path

from rl_scaling.records import Record
from rl_scaling.store import RunInfo
from rl_scaling.sweeps.trackers import known_numbers


class TensorBoardSink:
    """An event file with every number of every record over frames or examples, and the run's config as text.

    Args:
        info: the run.
        folder: of all runs; `tensorboard --logdir` takes it.
    """

    def __init__(self, info: RunInfo, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._unit = str(info.identity.unit)
        self._writer = SummaryWriter(str(folder / info.run_id))
        self._writer.add_text("config", "    " + json.dumps(info.config, indent=2).replace("\n", "\n    "))

    def write(self, record: Record) -> None:
        """See `rl_scaling.sweeps.trackers.Sink`."""
        numbers = known_numbers(record)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, int(numbers[self._unit]))

    def close(self) -> None:
        """See `rl_scaling.sweeps.trackers.Sink`."""
        self._writer.close()
