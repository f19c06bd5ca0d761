"""Runs trained without a store, for scripts and experiments: one by itself, or several in one batched program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Control, Event
from rl_scaling.domains.supervised.batched.forward import require_stackable
from rl_scaling.domains.supervised.batched.program import StackedRuns
from rl_scaling.domains.supervised.config import SupervisedConfig
from rl_scaling.domains.supervised.data.dataset import Dataset
from rl_scaling.domains.supervised.loop import train
from rl_scaling.domains.supervised.models import model_of
from rl_scaling.domains.supervised.single import SingleRun


def run_alone(config: SupervisedConfig, data: Dataset, control: Control | None = None) -> Iterator[tuple[int, Event]]:
    """Train one run of any model.

    Yields:
        (0, record), the first before any update, and at last (0, `Ended`).

    Raises:
        ConfigError: what `SingleRun` refuses.
    """
    yield from train(SingleRun(config, data), control or Control())


def run_together(
    configs: Sequence[SupervisedConfig], data: Dataset, control: Control | None = None
) -> Iterator[tuple[int, Event]]:
    """Train runs that differ in what is tuned and in the seed, in one batched program.

    Yields:
        (number of the run, record), the first before any update, and at last (number, `Ended`) for each.

    Raises:
        ConfigError: what `StackedRuns` refuses.
    """
    yield from train(StackedRuns(configs, data), control or Control())


def trains_together(config: SupervisedConfig, data: Dataset) -> bool:
    """Whether `run_together` takes runs like this one, or only `run_alone` does.

    Raises:
        ConfigError: there is no such model, or it does not fit the images.
    """
    model = model_of(config, data)
    try:
        require_stackable(model)
    except ConfigError:
        return False
    return not config.augment and config.adaptive is None and not config.b_noise_every_rows
