"""Records as a run of Weights & Biases."""

from __future__ import annotations

from rl_scaling.config import ConfigError
from rl_scaling.records import Record
from rl_scaling.store import RunInfo
from rl_scaling.sweeps.trackers import known_numbers


class WandbSink:
    """A run with every number of every record over frames or examples, grouped by task.

    Whether it goes to a server is wandb's own affair: WANDB_MODE=offline keeps it in WANDB_DIR until `wandb sync`.

    Args:
        info: the run; its id is the run's id there, so that a run which goes on is one run there too.
        project: the project's name.

    Raises:
        ConfigError: it cannot start.
    """

    def __init__(self, info: RunInfo, project: str) -> None:
        import wandb

        task = str(info.identity.task)
        name = f"{task} B={info.identity.batch_size:,} lr={info.identity.learning_rate:.3g}"
        try:
            self._run = wandb.init(
                project=project,
                id=info.run_id,
                name=name,
                group=task,
                config=info.config,
                resume="allow",
                reinit="create_new",
            )
        except wandb.Error as error:
            first = str(error).splitlines()[0]
            raise ConfigError(f"wandb cannot start: {first}; WANDB_MODE=offline needs no account") from error
        self._run.define_metric("*", step_metric=str(info.identity.unit))

    def write(self, record: Record) -> None:
        """See `rl_scaling.sweeps.trackers.Sink`."""
        self._run.log(known_numbers(record))

    def close(self) -> None:
        """See `rl_scaling.sweeps.trackers.Sink`."""
        self._run.finish()
