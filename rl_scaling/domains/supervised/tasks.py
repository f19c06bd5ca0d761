"""What a sweep knows of its tasks: data set, model, and where to look for learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import OptimizerConfig

OptimizerName = Literal[
    "sgd",
    "momentum",
    "nesterov",
    "adam",
    "adam-without-momentum",
    "rmsprop",
    "sgd+ema",
    "momentum+ema",
    "nesterov+ema",
    "adam+ema",
    "adam-without-momentum+ema",
    "rmsprop+ema",
]

_AVERAGED, _WITHOUT = "+ema", "-without-momentum"
_COEFFICIENTS: Mapping[OptimizerName, Mapping[str, Any]] = {
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9},
    "adam": {"momentum": 0.9, "second_moment": 0.999},
}


@dataclass(frozen=True)
class Task:
    """A data set and a model, with the learning rate of each optimiser that a short search by hand found good.

    Attributes:
        dataset, model: names that `load_dataset` and `make_model` know.
        rates: at a batch size of 64, the centre of the grid there; other batch sizes follow by A.3. An average of the
            weights, or Adam without momentum, has the rate that it has without, or with.
    """

    dataset: str
    model: str
    rates: Mapping[OptimizerName, float]

    def rate_of(self, optimizer: OptimizerName) -> float:
        """The learning rate to centre an optimiser's grids on.

        Raises:
            ConfigError: none is known.
        """
        rate = self.rates.get(optimizer, self.rates.get(_kind(optimizer)))
        if rate is None:
            known = ", ".join(self.rates)
            raise ConfigError(f"{self.dataset}-{self.model} has no learning rate for {optimizer}: leave it at {known}")
        return rate


TASKS: dict[str, Task] = {
    "digits-mlp": Task(
        "digits",
        "mlp",
        {"sgd": 0.35, "momentum": 0.04, "nesterov": 0.04, "adam": 4e-3, "rmsprop": 2e-3},
    ),
    "digits-cnn": Task(
        "digits",
        "small-cnn",
        {"sgd": 0.35, "momentum": 0.05, "nesterov": 0.04, "adam": 0.012, "rmsprop": 3e-3},
    ),
}


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        raise ConfigError(f"no task {name!r}: {', '.join(TASKS)}; docs/how-to/add-a-task.md shows how to add one")
    return TASKS[name]


def optimizer_of(name: OptimizerName, learning_rate: float) -> OptimizerConfig:
    """An optimiser with its customary coefficients: momentum 0.9, an average of the weights over some 20 updates.

    >>> optimizer_of("adam-without-momentum+ema", 0.1).label
    'adam-without-momentum+ema'
    """
    chosen = dict(_COEFFICIENTS.get(_kind(name), {}))
    if _WITHOUT in name:
        chosen["momentum"] = 0.0
    if name.endswith(_AVERAGED):
        chosen["ema"] = 0.95
    return OptimizerConfig(name=_kind(name), learning_rate=learning_rate, **chosen)


def rate_power(name: OptimizerName) -> float:
    """Alpha of A.3 (McCandlish et al. 2018): 1 for SGD and its kin, 0.5 for what divides by second moments."""
    return 0.5 if _kind(name) in ("adam", "rmsprop") else 1.0


def _kind(name: OptimizerName) -> OptimizerName:
    """The optimiser of torch."""
    return cast("OptimizerName", name.removesuffix(_AVERAGED).removesuffix(_WITHOUT))
