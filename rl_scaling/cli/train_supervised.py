"""`rl-scaling train supervised`: one run of any model on any data set of images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitArgPrefixes, arg

from rl_scaling.cli.adaptive import AdaptiveExamplesOptions
from rl_scaling.cli.options import as_json, at_least, print_json, say
from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig, updates_of_epochs
from rl_scaling.domains.supervised.tasks import OptimizerName, optimizer_of, rate_power
from rl_scaling.records import LossRecord, to_row
from rl_scaling.store import Store

if TYPE_CHECKING:
    from rl_scaling.domains.supervised.data.dataset import Dataset


@dataclass(frozen=True)
class TrainSupervised:
    """Train one model on labelled images once; what is done already is not done again."""

    dataset: str = "digits"
    """digits, mnist, fashion-mnist, cifar10, svhn, svhn-extra, or owner/name of the Hugging Face hub."""
    folder: Path | None = None
    """Parquet files of the data set in the hub's layout; without it the hub is asked."""
    model: str = "mlp"
    """mlp, cnn, small-cnn, resnet8, resnet32, vgg11, wide-resnet, wide-resnet-skipinit or autoencoder."""
    dropout: float = 0.0
    """Of models that have it."""
    optimizer: OptimizerName = "momentum"
    """With momentum 0.9; sgd+ema: an average of the weights with a decay of 0.95."""
    learning_rate: float = 0.05
    """The rate that the schedule starts from."""
    schedule: Literal["constant", "halving", "triggered"] = "constant"
    """halving: halved every twentieth of the second half. triggered: a tenth at each of --thresholds."""
    thresholds: tuple[float, ...] = ()
    """Training losses, falling, at which a triggered rate decays."""
    warmup_updates: int = 0
    """Over which the rate first rises linearly."""
    batch_size: int = 64
    """Examples per update; where an adaptive batch begins."""
    sampling: Literal["replacement", "epoch"] = "epoch"
    """Batches drawn with replacement, or each example once before any comes again."""
    augment: bool = False
    """Random crops, and mirror images but of digits."""
    label_smoothing: float = 0.0
    """Of the loss that is trained; evaluation has none."""
    epochs: float = 10
    """Passes over the data."""
    b_noise_every_rows: int = 0
    """Measure the noise scale with curvature, B_noise, at one row in so many; 0: never."""
    noise_every_updates: int = 0
    """Measure the noise scale B_simple at one update in so many; 0: never, or with --adaptive at each."""
    adaptive_batch: OmitArgPrefixes[AdaptiveExamplesOptions] = field(default_factory=AdaptiveExamplesOptions)
    seed: int = 0
    """Of weights, batches and draws."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    threads: int = 0
    """Threads for torch; 0: every core this process may use."""
    out: Annotated[Path, arg(metavar="DIR")] = Path("runs/supervised")
    """Store the run here, in a folder named after its configuration."""
    json: bool = False
    """Print the run's id, status and last row as JSON on stdout."""

    def run(self) -> int:
        at_least(0, threads=self.threads, epochs=self.epochs, b_noise_every_rows=self.b_noise_every_rows)
        at_least(0, noise_every_updates=self.noise_every_updates)
        import torch

        from rl_scaling.domains.supervised.batched import Ended
        from rl_scaling.domains.supervised.data import load_dataset
        from rl_scaling.domains.supervised.runs import run_alone
        from rl_scaling.envs import available_cpus
        from rl_scaling.store.provenance import provenance
        from rl_scaling.sweeps.trial import choose_device

        device, threads = choose_device(self.device), self.threads or available_cpus()
        torch.set_num_threads(threads)
        scale = "unit" if self.model == "autoencoder" else "standard"
        data = load_dataset(self.dataset, device=device, folder=self.folder, scale=scale)
        config, store = self.config(data), Store(self.out)
        length = f", {config.updates:,} updates"
        if config.adaptive is not None:
            length = f" at first, {config.setting}, {config.examples:,} examples"
        say(f"{config.task}, batch {config.batch_size:,}{length}, run {config.run_id} in {self.out}")
        if store.status(config.run_id) in (None, "interrupted"):
            rows = run_alone(
                config,
                data,
                b_noise_every_rows=self.b_noise_every_rows,
                noise_every_updates=self.noise_every_updates,
            )
            first = next(rows)  # what is refused is refused before anything is stored
            with store.open_run(config, provenance(device=str(device), threads=threads)) as run:
                run.keep_rows(0)
                for _, row in chain([first], rows):
                    if isinstance(row, Ended):
                        run.seal("diverged" if row.status == "diverged" else "done")
                    else:
                        run.append(row)
                        _show(row, adaptive=config.adaptive is not None)
        status = store.status(config.run_id)
        say(f"{status}: {self.out / config.run_id}")
        if self.json:
            print_json(
                {"run_id": config.run_id, "status": status, **as_json(to_row(store.read_rows(config.run_id)[-1]))}
            )
        return 0

    def config(self, data: Dataset) -> SupervisedConfig:
        """The run these options describe.

        Raises:
            ConfigError: they describe none.
        """
        optimizer: OptimizerConfig = optimizer_of(self.optimizer, self.learning_rate)
        schedule = ScheduleConfig(name=self.schedule, thresholds=self.thresholds, warmup_updates=self.warmup_updates)
        at_least(1, batch_size=self.batch_size)
        return SupervisedConfig(
            dataset=self.dataset,
            model=self.model,
            dropout=self.dropout,
            optimizer=optimizer,
            schedule=schedule,
            batch_size=self.batch_size,
            sampling=self.sampling,
            augment=self.augment,
            label_smoothing=self.label_smoothing,
            updates=updates_of_epochs(self.epochs, len(data.train), self.batch_size),
            budget=f"{self.epochs:.10g} epochs",
            seed=self.seed,
            adaptive=self.adaptive_batch.config(
                rate_power=rate_power(self.optimizer), measure_every_updates=self.noise_every_updates
            ),
        )


def _show(row: LossRecord, *, adaptive: bool) -> None:
    """One row for people."""
    batch = f", batch {row.current_batch_size:,.0f}" if adaptive and row.updates else ""
    accuracy = "" if math.isnan(row.validation_accuracy) else f", {row.validation_accuracy:.1%} right"
    say(f"{row.updates:,} updates{batch}: validation loss {row.validation_loss:.4g}{accuracy}")
