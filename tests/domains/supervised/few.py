"""A few of the digits, so that records cost little."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache

import torch

from rl_scaling.domains.base import Control, Event
from rl_scaling.domains.supervised.batched.program import StackedRuns
from rl_scaling.domains.supervised.config import SupervisedConfig
from rl_scaling.domains.supervised.data import Dataset, Split, load_dataset
from rl_scaling.domains.supervised.domain import Supervised
from rl_scaling.domains.supervised.loop import train
from rl_scaling.domains.supervised.single import SingleRun


class Few(Supervised):
    """The domain on fewer digits."""

    def data(self, config: SupervisedConfig, device: str | torch.device = "cpu", folder: str = "") -> Dataset:
        return few_digits() if config.dataset == "digits" else super().data(config, device, folder)


@cache
def few_digits() -> Dataset:
    def first(split: Split, count: int) -> Split:
        return dataclasses.replace(split, inputs=split.inputs[:count], targets=split.targets[:count])

    digits = load_dataset("digits")
    return dataclasses.replace(digits, train=first(digits.train, 150), validation=first(digits.validation, 50))


def run_alone(config: SupervisedConfig, data: Dataset, control: Control | None = None) -> Iterator[tuple[int, Event]]:
    """Train one run of any model."""
    yield from train(SingleRun(config, data), control or Control())


def run_together(
    configs: Sequence[SupervisedConfig], data: Dataset, control: Control | None = None
) -> Iterator[tuple[int, Event]]:
    """Train runs that differ in what is tuned and in the seed, in one batched program."""
    yield from train(StackedRuns(configs, data), control or Control())
