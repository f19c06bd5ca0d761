"""`rl-scaling sweep supervised`: steps to a loss over optimisers, batch sizes, learning rates and seeds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from rl_scaling.commands.options import at_least, print_json, say
from rl_scaling.config import ConfigError
from rl_scaling.store import Store
from rl_scaling.supervised.tasks import TASKS, OptimizerName, optimizer_of, rate_power
from rl_scaling.sweeps.plan import LearningRates, keep_goals

if TYPE_CHECKING:
    from rl_scaling.store import RunWriter
    from rl_scaling.supervised.config import SupervisedConfig

# B* of A.3 and the batch size of the centres in `TASKS`.
_TURN = 64


@dataclass(frozen=True)
class SweepSupervised:
    """Steps to a loss; runs of one optimiser and batch size train together, and what is done is kept."""

    task: Literal["digits-mlp", "digits-cnn"] = "digits-mlp"
    """Data set and model: an MLP of 64-64 units; a convolutional network of 8-16 channels and 64 units."""
    optimizers: tuple[OptimizerName, ...] = ("sgd", "momentum", "adam", "rmsprop", "sgd+ema")
    """Optimisers; each is a task of its own."""
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    """Batch sizes in examples, drawn with replacement."""
    rates: int = 8
    """Learning rates per batch size, centred by A.3."""
    spacing: float = 2.0
    """Ratio of neighbouring learning rates."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of every combination."""
    targets: tuple[float, ...] = (0.6, 0.3, 0.2, 0.15)
    """Losses to reach; a run that has reached the lowest stops."""
    quantity: Literal["validation_loss", "training_loss"] = "validation_loss"
    """Of which data they are the loss."""
    epochs: float = 20
    """A run ends after so many passes over the data, or after --updates if these are more."""
    updates: int = 600
    """Fewest updates of a run that does not reach the lowest target."""
    noise_every_updates: int = 4
    """Measure the noise scale at one update in this many."""
    workers: int = 0
    """Optimisers and batch sizes side by side, one thread each; 0: one per core this process may use."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Store the runs here; by default runs/<task>."""
    json: bool = False
    """Print a summary of the runs as JSON on stdout."""

    def run(self) -> int:
        from rl_scaling.envs import available_cpus

        at_least(1, rates=self.rates, updates=self.updates, noise_every_updates=self.noise_every_updates)
        at_least(0, workers=self.workers, epochs=self.epochs)
        if not (self.optimizers and self.batch_sizes and self.seeds and self.targets):
            raise ConfigError("give at least one of --optimizers, --batch-sizes, --seeds and --targets")
        store = Store(self.out or Path("runs") / self.task)
        cells = [self.cell(name, size) for name in self.optimizers for size in sorted(set(self.batch_sizes))]
        keep_goals(store, {config.task: self.targets for cell in cells for config in cell})
        waiting = [
            [config for config in cell if store.status(config.run_id) in (None, "interrupted")] for cell in cells
        ]
        waiting = [cell for cell in waiting if cell]
        say(f"{sum(map(len, cells))} runs in {store.root}, {sum(map(len, waiting))} of them to do")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers or available_cpus(), mp_context=context) as pool:
            # The smallest batches take longest: first, so that none is left alone at the end.
            jobs = {
                pool.submit(run_cell, store.root, cell, min(self.targets), self.noise_every_updates): cell
                for cell in sorted(waiting, key=lambda cell: cell[0].batch_size)
            }
            for done, job in enumerate(as_completed(jobs), start=1):
                first = jobs[job][0]
                say(f"{done} of {len(jobs)}: {first.task}, batch {first.batch_size:,}: {job.result()}")
        if self.json:
            print_json([_summary(store, config) for cell in cells for config in cell])
        return 0

    def cell(self, name: OptimizerName, batch_size: int) -> list[SupervisedConfig]:
        """The runs of one optimiser and batch size.

        Raises:
            ConfigError: a batch size below 1, or rates that make no grid.
        """
        from rl_scaling.supervised.config import SupervisedConfig, updates_of_epochs
        from rl_scaling.supervised.data import load_dataset

        if batch_size < 1:
            raise ConfigError(f"batch size {batch_size}: give 1 or more")
        task = TASKS[self.task]
        rates = LearningRates(
            reference_rate=task.rates[name],
            reference_batch=_TURN,
            turn=_TURN,
            power=rate_power(name),
            count=self.rates,
            spacing=self.spacing,
        )
        examples = len(load_dataset(task.dataset).train)
        return [
            SupervisedConfig(
                dataset=task.dataset,
                model=task.model,
                optimizer=optimizer_of(name, learning_rate),
                batch_size=batch_size,
                updates=max(self.updates, updates_of_epochs(self.epochs, examples, batch_size)),
                quantity=self.quantity,
                seed=seed,
            )
            for learning_rate in rates.grid(batch_size)
            for seed in self.seeds
        ]


def run_cell(root: Path, configs: Sequence[SupervisedConfig], target: float, noise_every_updates: int) -> str:
    """Train runs of one optimiser and batch size into a store, in a process of its own; what became of them."""
    import contextlib

    import torch

    from rl_scaling.supervised.batched import Ended, together_pays
    from rl_scaling.supervised.data import load_dataset
    from rl_scaling.supervised.runs import run_together
    from rl_scaling.sweeps.provenance import provenance

    torch.set_num_threads(1)
    first = configs[0]
    data = load_dataset(first.dataset)
    together = together_pays(first.model, (), data, first.batch_size, len(configs))
    ends: dict[str, int] = {}
    for part in [configs] if together else [[config] for config in configs]:
        with contextlib.ExitStack() as stack:
            origin = provenance(device="cpu", threads=1)
            writers: list[RunWriter] = [stack.enter_context(Store(root).open_run(c, origin)) for c in part]
            for writer in writers:
                writer.keep_rows(0)
            for number, row in run_together(part, data, target=target, noise_every_updates=noise_every_updates):
                if isinstance(row, Ended):
                    # One that has reached the lowest target has nothing left to do.
                    status = "diverged" if row.status == "diverged" else "done"
                    writers[number].seal(status)
                    ends[status] = ends.get(status, 0) + 1
                else:
                    writers[number].append(row)
    how = "together" if together else "one at a time"
    return ", ".join(f"{count} {status}" for status, count in ends.items()) + f", trained {how}"


def _summary(store: Store, config: SupervisedConfig) -> dict[str, object]:
    return {
        "run_id": config.run_id,
        "task": config.task,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "status": store.status(config.run_id),
    }
