"""`rl-scaling sweep supervised`: optimisers, batch sizes, learning rates and seeds, to a loss or for a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from rl_scaling.cli.options import at_least, print_json, say
from rl_scaling.domains.supervised.budgets import Budget, doubled
from rl_scaling.domains.supervised.tasks import OptimizerName, find_task
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import keep_goals

if TYPE_CHECKING:
    from rl_scaling.domains.supervised.config import SupervisedConfig
    from rl_scaling.sweeps.supervised import SupervisedGrid
    from rl_scaling.sweeps.supervised_search import SupervisedSearch


@dataclass(frozen=True)
class SweepSupervised:
    """Steps to a loss, or what a budget buys; runs of a batch size train together, and what is done is kept."""

    task: str = "digits-mlp"
    """Data set and model: digits-mlp, an MLP of 64-64 units; digits-cnn, a convolutional network of 8-16 channels and
    64 units; or one that you added (docs/how-to/add-a-task.md)."""
    optimizers: tuple[OptimizerName, ...] = ("sgd", "momentum", "adam", "rmsprop", "sgd+ema")
    """Optimisers; each is a task of its own."""
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    """Batch sizes in examples, drawn with replacement."""
    rates: int = 8
    """Learning rates per batch size that are tried first, centred by A.3."""
    spacing: float = 2.0
    """Ratio of neighbouring learning rates."""
    extensions: int = 2
    """Learning rates that may be added beyond each end on which a best one lies."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of every combination."""
    search: Literal["grid", "sobol"] = "grid"
    """sobol: quasi-random points of learning rate, momentum and average in place of a grid of learning rates."""
    trials: int = 32
    """Search: points per optimiser and batch size that do not diverge."""
    width: float = 64.0
    """Search: upper over lower bound of the learning rate."""
    decay: bool = False
    """Search: a linear decay of the learning rate too."""
    budget: Literal["target", "epochs", "steps", "unlimited"] = "target"
    """target: until the lowest of --targets. epochs, steps: the same --epochs or --updates at every batch size, with a
    learning rate that is halved again and again in the second half. unlimited: --epochs and its doublings."""
    targets: tuple[float, ...] = (0.6, 0.3, 0.2, 0.15)
    """Losses to reach at a constant rate; a run that has reached the lowest stops."""
    quantity: Literal["validation_loss", "training_loss"] = "validation_loss"
    """Of which data they are the loss."""
    epochs: float = 20
    """Passes over the data: the budget; or where a run to a target ends, or after --updates if these are more."""
    updates: int = 600
    """Updates: the budget in steps; or the fewest of a run that does not reach its lowest target."""
    doublings: int = 4
    """How often --epochs is doubled for an unlimited budget."""
    noise_every_updates: int = 4
    """Measure the noise scale at one update in this many."""
    workers: int = 0
    """Optimisers and batch sizes side by side, one thread each; 0: one per core this process may use."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Store the runs here; by default runs/<task>, and runs/<task>-budgets for budgets."""
    json: bool = False
    """Print a summary of the runs as JSON on stdout."""

    def run(self) -> int:
        at_least(1, rates=self.rates, updates=self.updates, noise_every_updates=self.noise_every_updates)
        at_least(0, workers=self.workers, epochs=self.epochs, doublings=self.doublings, extensions=self.extensions)
        from rl_scaling.domains.supervised.data import load_dataset
        from rl_scaling.envs import available_cpus
        from rl_scaling.sweeps.supervised import run_cells

        plan = self.plan()
        targets = self.targets if self.budget == "target" else ()
        examples = len(load_dataset(find_task(self.task).dataset).train)
        name = self.task if self.budget == "target" else f"{self.task}-budgets"
        store = Store(self.out or Path("runs") / name)
        cells = plan.cells(examples)
        keep_goals(store, {cell[0].task: targets for cell in cells})
        waiting = [c for cell in cells for c in cell if store.status(c.run_id) in (None, "interrupted")]
        say(f"{sum(map(len, cells))} runs in {store.root}, {len(waiting)} of them to do")
        every = list(cells)
        while cells:
            for line in run_cells(
                store,
                cells,
                target=min(targets, default=-math.inf),
                noise_every_updates=self.noise_every_updates,
                workers=self.workers or available_cpus(),
            ):
                say(line)
            cells = plan.extended(store, examples)
            every += cells
            if cells:
                say(f"{sum(map(len, cells))} more runs, for what lies on an edge or has diverged")
        for remark in plan.remarks(store):
            say(remark)
        if self.json:
            print_json([_summary(store, config) for cell in every for config in cell])
        return 0

    def plan(self) -> SupervisedGrid | SupervisedSearch:
        """What is run.

        Raises:
            ConfigError: it is nothing, or what a budget or the grid refuses.
        """
        from rl_scaling.sweeps.supervised import SupervisedGrid
        from rl_scaling.sweeps.supervised_search import SupervisedSearch

        budgets: list[Budget] = []
        if self.budget == "steps":
            budgets = [Budget(self.updates, "steps")]
        elif self.budget != "target":
            budgets = doubled(Budget(self.epochs, "epochs"), self.doublings if self.budget == "unlimited" else 0)
        grid = SupervisedGrid(
            task=self.task,
            optimizers=self.optimizers,
            batch_sizes=self.batch_sizes,
            rates=self.rates,
            spacing=self.spacing,
            extensions=self.extensions,
            seeds=self.seeds,
            targets=() if budgets else self.targets,
            quantity=self.quantity,
            epochs=self.epochs,
            updates=self.updates,
            budgets=tuple(budgets),
        )
        if self.search == "grid":
            return grid
        return SupervisedSearch(grid=grid, trials=self.trials, width=self.width, decay=self.decay)


def _summary(store: Store, config: SupervisedConfig) -> dict[str, object]:
    return {
        "run_id": config.run_id,
        "task": config.task,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "status": store.status(config.run_id),
    }
