"""`rl-scaling export`: the runs of stores, handed to TensorBoard or to Weights & Biases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rl_scaling.cli.options import Folders, print_line, unset
from rl_scaling.config import ConfigError
from rl_scaling.records import to_row
from rl_scaling.store import RunInfo, Store, list_runs
from rl_scaling.sweeps.trackers import Trackers, require_installed


@dataclass(frozen=True)
class Export:
    """Hand the records of stored runs to a tracker, or write them as CSV; the store stays as it is."""

    folders: Folders
    """Stores of runs, or folders that hold some."""
    tensorboard: Annotated[Path | None, unset("DIR")] = None
    """Write TensorBoard event files here, one folder per run."""
    wandb: Annotated[str | None, unset("PROJECT")] = None
    """Log to this project of Weights & Biases; WANDB_MODE=offline keeps it on this machine."""
    csv: Annotated[Path | None, unset("DIR")] = None
    """Write the records of every run here as GAME-ALGORITHM-RUN.csv, one row each."""

    def run(self) -> int:
        if not self.folders:
            raise ConfigError("name a folder of runs, for instance runs/breakout-a2c")
        if self.tensorboard is None and self.wandb is None and self.csv is None:
            raise ConfigError("say where to: --tensorboard DIR, --wandb PROJECT or --csv DIR")
        require_installed(tensorboard=self.tensorboard, wandb=self.wandb)
        infos = list_runs(*self.folders)
        for info in infos:
            store = Store(info.directory.parent)
            if self.tensorboard is not None:
                for old in (self.tensorboard / info.run_id).glob("events.out.tfevents.*"):
                    old.unlink()
            if self.csv is not None:
                _write_csv(store, info, self.csv)
            with Trackers(self.tensorboard, self.wandb) as trackers:
                for record in store.read_rows(info.run_id):
                    trackers.write(store, info.run_id, record)
        print_line(f"{len(infos)} runs exported")
        return 0


def _write_csv(store: Store, info: RunInfo, folder: Path) -> None:
    """The records of one run; a file of that name is replaced."""
    import pandas as pd

    from rl_scaling.report.page import write_file

    name = f"{info.identity.problem}-{info.identity.algorithm}-{info.run_id}.csv".lower().replace("/", "-")
    rows = pd.DataFrame([to_row(record) for record in store.read_rows(info.run_id)])
    write_file(folder / name, rows.to_csv(index=False).encode())
