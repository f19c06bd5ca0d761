"""Sweeps of supervised runs: what to run, as data, and many runs of one optimiser and batch size at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rl_scaling.analysis.budgets import best_rates_of_budgets
from rl_scaling.analysis.fronts import front, is_adaptive
from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.budgets import Budget
from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig, updates_of_epochs
from rl_scaling.domains.supervised.tasks import OptimizerName, find_task, optimizer_of, rate_power
from rl_scaling.store import RunWriter, Store, list_runs, load_runs
from rl_scaling.store.provenance import provenance
from rl_scaling.sweeps.plan import LearningRates

# B* of A.3 and the batch size of the centres in `TASKS`.
_TURN = 64
Cell = list[SupervisedConfig]


@dataclass(frozen=True, kw_only=True)
class SupervisedGrid:
    """Optimisers, batch sizes, learning rates and seeds of one task.

    Attributes:
        task: one of `TASKS`.
        optimizers: each with the learning rates that suit it, centred by A.3.
        batch_sizes: in examples.
        rates: learning rates per batch size that are tried first.
        spacing: ratio of neighbouring learning rates.
        extensions: rates that may be added beyond each end.
        seeds: of every combination.
        targets: losses to reach at a constant rate; what reaches the lowest stops. Empty with budgets.
        quantity: of which data they are the loss.
        epochs, updates: of runs with targets, whichever is longer.
        budgets: of runs without targets, whose rates are halved by Smith, Elsen and De's schedule.

    Raises:
        ConfigError: no combination, targets beside budgets or neither, or a batch size below 1.
    """

    task: str
    optimizers: tuple[OptimizerName, ...]
    batch_sizes: tuple[int, ...]
    rates: int = 8
    spacing: float = 2.0
    extensions: int = 0
    seeds: tuple[int, ...] = (0, 1)
    targets: tuple[float, ...] = ()
    quantity: str = "validation_loss"
    epochs: float = 20
    updates: int = 600
    budgets: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        if not (self.optimizers and self.batch_sizes and self.seeds) or bool(self.targets) == bool(self.budgets):
            raise ConfigError("give at least one of --optimizers, --batch-sizes, --seeds and --targets")
        if min(self.batch_sizes) < 1:
            raise ConfigError(f"batch size {min(self.batch_sizes)}: give 1 or more")

    def cells(self, examples: int) -> list[Cell]:
        """Runs that train together, for so many training examples.

        Raises:
            ConfigError: rates that make no grid.
        """
        return [
            self._cell(name, size, self.learning_rates(name).grid(size), budget, examples)
            for budget in self.budgets or (None,)
            for name in dict.fromkeys(self.optimizers)
            for size in sorted(set(self.batch_sizes))
        ]

    def extended(self, store: Store, examples: int) -> list[Cell]:
        """Runs at one more rate beyond each end on which a best rate lies, by what the store holds."""
        _, best = self._best(store)
        infos = pd.DataFrame([info.identity for info in list_runs(store.root) if not info.config.get("adaptive")])
        cells: list[Cell] = []
        for first in self.cells(examples):
            task, size, name = first[0].task, first[0].batch_size, self._name(first[0])
            here = infos[(infos["task"] == task) & (infos["batch_size"] == size)]
            rates = best.loc[(best["task"] == task) & (best["batch_size"] == size), "learning_rate"]
            tried = here["learning_rate"].tolist()
            beyond = {self.learning_rates(name).beyond(tried, rate, size) for rate in rates.unique()} - {None}
            budget = next((budget for budget in self.budgets if budget.words == first[0].budget), None)
            if beyond:
                cells.append(self._cell(name, size, sorted(rate for rate in beyond if rate), budget, examples))
        return cells

    def remarks(self, store: Store) -> list[str]:
        """Where a best rate is still the first or the last that was tried."""
        runs, best = self._best(store)
        said: list[str] = []
        for row in best.to_dict("records"):
            tried = runs.loc[(runs["task"] == row["task"]) & (runs["batch_size"] == row["batch_size"]), "learning_rate"]
            ends = {tried.min(): ("lowest", "lower"), tried.max(): ("highest", "higher")}
            if row["learning_rate"] in ends:
                end, word = ends[row["learning_rate"]]
                what = row["quantity"].replace("_", " ") if self.budgets else f"to {row['goal']:g}"
                where = f"{row['task']}, batch {row['batch_size']:,}, {what}"
                said.append(f"{where}: learning rate {row['learning_rate']:g} is the {end} tried: try {word} ones")
        return said

    def _best(self, store: Store) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The store's runs with a fixed batch, and their best rates: a batch that changes tries no rate at its size."""
        runs = load_runs(store.root)
        runs = runs[~is_adaptive(runs)]
        if self.budgets:
            return runs, best_rates_of_budgets(runs)
        return runs, front(runs, {str(task): self.targets for task in runs["task"].unique()})

    def _name(self, config: SupervisedConfig) -> OptimizerName:
        return next(n for n in self.optimizers if optimizer_of(n, 1.0).label == config.optimizer.label)

    def learning_rates(self, name: OptimizerName) -> LearningRates:
        """Where an optimiser's rates are looked for."""
        return LearningRates(
            reference_rate=find_task(self.task).rate_of(name),
            reference_batch=_TURN,
            turn=_TURN,
            power=rate_power(name),
            count=self.rates,
            spacing=self.spacing,
            max_extensions=self.extensions,
        )

    def _cell(
        self, name: OptimizerName, batch_size: int, rates: Sequence[float], budget: Budget | None, examples: int
    ) -> Cell:
        schedule = ScheduleConfig(name="halving" if budget else "constant")
        return [
            self.config(optimizer_of(name, rate), schedule, batch_size, examples, seed=seed, budget=budget)
            for rate in rates
            for seed in self.seeds
        ]

    def updates_of(self, batch_size: int, examples: int, budget: Budget | None = None) -> int:
        """After which a run of this batch size ends."""
        if budget is None:
            return max(self.updates, updates_of_epochs(self.epochs, examples, batch_size))
        return budget.updates(examples=examples, batch_size=batch_size)

    def config(
        self,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
        examples: int,
        *,
        seed: int,
        budget: Budget | None = None,
    ) -> SupervisedConfig:
        """One run on so many training examples."""
        return SupervisedConfig(
            dataset=find_task(self.task).dataset,
            model=find_task(self.task).model,
            optimizer=optimizer,
            schedule=schedule,
            batch_size=batch_size,
            updates=self.updates_of(batch_size, examples, budget),
            budget=budget.words if budget else "",
            quantity=self.quantity,
            seed=seed,
        )


def run_cells(
    store: Store, cells: Sequence[Cell], *, target: float, noise_every_updates: int, workers: int
) -> Iterator[str]:
    """Train the runs of each cell that the store lacks, cells side by side; what became of each cell, as it ends.

    Args:
        store: where runs go; sealed ones are not run again, interrupted ones begin anew.
        cells: runs of one optimiser and batch size each.
        target: runs whose quantity has come down to this stop.
        noise_every_updates: one update in so many measures the noise scale.
        workers: processes.
    """
    waiting = [[c for c in cell if store.status(c.run_id) in (None, "interrupted")] for cell in cells]
    # The smallest batches take longest: first, so that none is left alone at the end.
    waiting = sorted((cell for cell in waiting if cell), key=lambda cell: cell[0].batch_size)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = {pool.submit(run_cell, store.root, cell, target, noise_every_updates): cell for cell in waiting}
        for done, job in enumerate(as_completed(jobs), start=1):
            first = jobs[job][0]
            yield f"{done} of {len(jobs)}: {first.task}, batch {first.batch_size:,}: {job.result()}"


def run_cell(root: Path, configs: Sequence[SupervisedConfig], target: float, noise_every_updates: int) -> str:
    """Train runs of one optimiser and batch size into a store, in a process of its own; what became of them."""
    import torch

    from rl_scaling.domains.supervised.batched import Ended, together_pays
    from rl_scaling.domains.supervised.data import load_dataset
    from rl_scaling.domains.supervised.runs import run_together

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
