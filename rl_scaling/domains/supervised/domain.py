"""The supervised domain's side of the plug: which runs train together, and how they are run."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_scaling.config import ConfigError
from rl_scaling.domains.base import ON_ONE_THREAD, Control, Domain, Event, Hardware
from rl_scaling.domains.supervised.config import SupervisedConfig, kind_of

if TYPE_CHECKING:
    import torch

    from rl_scaling.domains.supervised.data.dataset import Dataset


class Supervised(Domain[SupervisedConfig]):
    """Training on labelled images."""

    name = "supervised"
    config = SupervisedConfig

    def data(self, config: SupervisedConfig, device: str | torch.device = "cpu", folder: str = "") -> Dataset:
        """The data that a run trains on, in the scale that its model wants.

        Args:
            device: where batches are wanted.
            folder: of Parquet files to read, in place of the Hugging Face hub (see `load_dataset`); "" for none.

        Raises:
            ConfigError: they are not there.
        """
        from rl_scaling.domains.supervised.data import load_dataset

        scale = "unit" if config.model == "autoencoder" else "standard"
        return load_dataset(config.dataset, device=device, folder=Path(folder) if folder else None, scale=scale)

    def together(
        self, configs: Sequence[SupervisedConfig], hardware: Hardware = ON_ONE_THREAD
    ) -> list[list[SupervisedConfig]]:
        """Runs that differ in what is tuned and in the seed train together where a short trial shows that it pays."""
        groups: dict[Hashable, list[SupervisedConfig]] = {}
        for config in configs:
            groups.setdefault(self.job_key(config), []).append(config)
        split: list[list[SupervisedConfig]] = []
        for group in groups.values():
            first, data = group[0], self.data(group[0]) if len(group) > 1 else None
            pays = data is not None and trains_together(first, data) and _pays(first, data, len(group))
            split += [group] if pays else [[config] for config in group]
        return split

    def job_key(self, config: SupervisedConfig) -> Hashable:
        """See `Domain.job_key`: what runs that train together agree in."""
        return config if config.adaptive else kind_of(config)

    def device(self, hardware: Hardware) -> str:
        from rl_scaling.domains.device import choose_device

        return str(choose_device(hardware.device))

    def refuse(self, configs: Sequence[SupervisedConfig], hardware: Hardware, side_by_side: int) -> None:
        """See `Domain.refuse`; the data are read and every kind of model is made, so that `run` begins."""
        if hardware.compute_dtype != "float32" or hardware.alternate:
            raise ConfigError("supervised runs compute in float32 and have no environments: leave both options out")
        from rl_scaling.domains.device import choose_device
        from rl_scaling.domains.supervised.models import model_of
        from rl_scaling.domains.supervised.recipe import ExampleStream

        device = choose_device(hardware.device)
        seen: set[tuple[object, ...]] = set()
        for config in configs:
            kind = (config.dataset, config.model, config.dropout, config.sampling, config.largest_batch)
            if kind not in seen:
                seen.add(kind)
                data = self.data(config, device, hardware.data_folder)
                model_of(config, data)
                ExampleStream(config, len(data.train))

    def run(
        self,
        configs: Sequence[SupervisedConfig],
        resume: Sequence[Mapping[str, Any] | None],
        control: Control,
        hardware: Hardware,
    ) -> Iterator[tuple[int, Event]]:
        """See `Domain.run`; several runs train in one batched program, one by torch's own optimiser."""
        import torch

        from rl_scaling.domains.device import choose_device
        from rl_scaling.domains.supervised.batched.program import StackedRuns
        from rl_scaling.domains.supervised.loop import train
        from rl_scaling.domains.supervised.single import SingleRun

        torch.set_num_threads(hardware.threads)
        if not configs:
            raise ConfigError("there is nothing to train: give one config or more")
        data = self.data(configs[0], choose_device(hardware.device), hardware.data_folder)
        program = SingleRun(configs[0], data) if len(configs) == 1 else StackedRuns(configs, data)
        program.resume(resume)
        yield from train(program, control)


def trains_together(config: SupervisedConfig, data: Dataset) -> bool:
    """Whether runs like this one can train together in one batched program.

    Raises:
        ConfigError: there is no such model, or it does not fit the images.
    """
    from rl_scaling.domains.supervised.batched.forward import require_stackable
    from rl_scaling.domains.supervised.models import model_of

    model = model_of(config, data)
    try:
        require_stackable(model)
    except ConfigError:
        return False
    return not config.augment and config.adaptive is None and not config.b_noise_every_rows


def _pays(config: SupervisedConfig, data: Dataset, trials: int) -> bool:
    """`together_pays` with one thread, as runs of a sweep have it."""
    import torch

    from rl_scaling.domains.supervised.batched.program import together_pays

    options = (("dropout", config.dropout),) if config.dropout else ()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return together_pays(config.model, options, data, config.batch_size, trials)
    finally:
        torch.set_num_threads(threads)
