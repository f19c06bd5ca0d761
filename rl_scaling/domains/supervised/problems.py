"""Problems by name, where to look for their learning rates, and the task of a sweep over one. It imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, ClassVar, Literal, cast

from rl_scaling.config import ConfigError, LearningRates, require, require_positive
from rl_scaling.domains.base import TaskPlan
from rl_scaling.domains.supervised.config import (
    REFERENCE_BATCH,
    AdaptiveExamplesConfig,
    Budget,
    OptimizerConfig,
    ScheduleConfig,
    SupervisedConfig,
    updates_of_epochs,
)

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
class Problem:
    """A data set and a model, with what a sweep needs to know of them.

    Attributes:
        dataset, model: names that `load_dataset` and `make_model` know.
        rates: learning rates that a short search by hand found good at a batch size of `REFERENCE_BATCH`, the centre
            of the grid there; other batch sizes follow by A.3. An average of the weights, or Adam without momentum, has
            the rate that it has without, or with.
        goals: losses to reach.
        batch_sizes: that are swept.
        epochs, updates: of a run that reaches no goal, whichever is longer.
        unit: what its batches count.
        quantity: of which data the goals are the loss.
        model_source: "package.module:function" that makes the model where `MODELS` lacks it, from (image_shape,
            num_classes).
        dataset_source: "package.module:function" that gives the `Dataset` where `load_dataset` lacks it, from (device).
    """

    dataset: str
    model: str
    rates: Mapping[OptimizerName, float]
    goals: tuple[float, ...] = (0.6, 0.3, 0.2, 0.15)
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    epochs: float = 20
    updates: int = 600
    unit: str = "examples"
    quantity: str = "validation_loss"
    model_source: str = ""
    dataset_source: str = ""

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

    def learning_rates(self, optimizer: OptimizerName, **grid: Any) -> LearningRates:
        """Where an optimiser's rates are looked for, by A.3; `grid` are count, spacing, max_extensions or fixed."""
        return LearningRates(
            reference_rate=self.rate_of(optimizer),
            reference_batch=REFERENCE_BATCH,
            turn=REFERENCE_BATCH,
            power=rate_power(optimizer),
            **grid,
        )

    def base(self, optimizer: OptimizerName, **changes: Any) -> SupervisedConfig:
        """The run that a sweep's trials are variants of: an optimiser at the reference batch and its rate."""
        changes = {"quantity": self.quantity, **changes}
        return SupervisedConfig(
            dataset=self.dataset,
            model=self.model,
            optimizer=optimizer_of(optimizer, self.rate_of(optimizer)),
            batch_size=REFERENCE_BATCH,
            **changes,
        )


PROBLEMS: dict[str, Problem] = {
    "digits-mlp": Problem(
        "digits", "mlp", {"sgd": 0.35, "momentum": 0.04, "nesterov": 0.04, "adam": 4e-3, "rmsprop": 2e-3}
    ),
    "digits-cnn": Problem(
        "digits", "small-cnn", {"sgd": 0.35, "momentum": 0.05, "nesterov": 0.04, "adam": 0.012, "rmsprop": 3e-3}
    ),
}
# Their former names.
Task, TASKS = Problem, PROBLEMS


def find_problem(name: str) -> Problem:
    """The problem of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROBLEMS:
        raise ConfigError(f"no task {name!r}: {', '.join(PROBLEMS)}; docs/how-to/add-a-task.md shows how to add one")
    return PROBLEMS[name]


def source_of(part: Literal["model", "dataset"], name: str) -> Callable[..., Any] | None:
    """The function that makes a problem's own model or data set of this name; None where no problem has one."""
    for problem in PROBLEMS.values():
        source: str = getattr(problem, f"{part}_source")
        if source and getattr(problem, part) == name:
            return resolve_name(source)
    return None


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


# The dimensions of a search, in the order of `search_space`, and what they are called in messages.
SEARCHED = {
    "learning_rate": "learning rate",
    "one_minus_momentum": "1 - momentum",
    "one_minus_ema": "1 - decay of the average",
    "final_factor": "final factor",
    "decay_share": "share of the updates that decay",
}


@dataclass(frozen=True, kw_only=True)
class SupervisedTask(TaskPlan):
    """One optimiser on one problem, at a constant rate until its goals are reached, or with a budget.

    Attributes:
        base: the run that all are variants of; its batch size, learning rate, updates, budget and seed are replaced.
        examples: training examples that there are.
        epochs, updates: of a run that reaches no goal, whichever is longer.
        budget: fixes the updates in their place; the rates are then halved by Smith, Elsen and De's schedule.
        adaptive: an adaptive batch, run after the fixed ones from its smallest batch size on.
    """

    kind: ClassVar[str] = "supervised"

    base: SupervisedConfig
    examples: int
    epochs: float = 20.0
    updates: int = 600
    budget: Budget | None = None
    adaptive: AdaptiveExamplesConfig | None = None

    def check(self) -> None:
        super().check()
        require(min(self.batch_sizes) >= 1, f"batch size {min(self.batch_sizes)}: give 1 or more")
        require_positive(self, "examples", "updates")
        require(
            self.epochs >= 0 and math.isfinite(self.epochs * self.examples), f"epochs is {self.epochs}: give 0 or more"
        )
        alone = self.base.adaptive is None
        require(alone, "the batch of a task's base is adaptive: name it as the task's adaptive, beside its fixed ones")
        both = self.adaptive is not None and self.budget is not None
        require(not both, "an adaptive batch sets the learning rate by itself: give no budget, or no adaptive batch")

    def updates_of(self, batch_size: int) -> int:
        """After which a run of this batch size ends."""
        if self.budget is None:
            return max(self.updates, updates_of_epochs(self.epochs, self.examples, batch_size))
        return self.budget.updates(examples=self.examples, batch_size=batch_size)

    def config(self, batch_size: int, learning_rate: float, seed: int, **tuned: float) -> SupervisedConfig:
        """See `TaskPlan.config`.

        Args:
            batch_size: in examples.
            learning_rate: that the schedule starts from.
            tuned: values of a point of the search, by the names of `SEARCHED`: one_minus_momentum and one_minus_ema
                change the optimiser; final_factor and decay_share (of the run's updates) make its decay linear.
        """
        if unknown := sorted(set(tuned) - set(SEARCHED)):
            raise ConfigError(f"a supervised run has no {unknown[0]} to tune: {', '.join(SEARCHED)}")
        updates = self.updates_of(batch_size)
        coefficients = {
            name: float(f"{1 - tuned[f'one_minus_{name}']:.6g}")
            for name in ("momentum", "ema")
            if f"one_minus_{name}" in tuned
        }
        schedule = ScheduleConfig(name="halving") if self.budget else self.base.schedule
        if "decay_share" in tuned:
            length = max(1, round(tuned["decay_share"] * updates))
            factor = tuned.get("final_factor", 1.0)
            schedule = ScheduleConfig(name="linear", final_factor=factor, decay_updates=length)
        return dataclasses.replace(
            self.base,
            optimizer=dataclasses.replace(self.base.optimizer, learning_rate=learning_rate, **coefficients),
            schedule=schedule,
            batch_size=batch_size,
            updates=updates,
            budget=self.budget.words if self.budget else "",
            seed=seed,
        )

    def search_space(self, batch_size: int, width: float, decay: bool) -> Sequence[tuple[str, float, float]]:
        """See `TaskPlan.search_space`; by the names of `SEARCHED`.

        Raises:
            ConfigError: a task with a budget.
        """
        require(self.budget is None, "a search is for targets: leave the budget out, or the search")
        space = [*super().search_space(batch_size, width, decay)]
        space += [("one_minus_momentum", 0.01, 0.9)] if self.base.optimizer.momentum else []
        space += [("one_minus_ema", 0.003, 0.5)] if self.base.optimizer.ema else []
        return space + ([("final_factor", 1e-3, 1.0), ("decay_share", 0.1, 1.0)] if decay else [])

    def adaptive_configs(self, seed: int) -> Sequence[SupervisedConfig]:
        """See `TaskPlan.adaptive_configs`: one at each of the rates that are tried first at its smallest batch."""
        if self.adaptive is None:
            return ()
        size = self.adaptive.min_batch_size
        return [
            dataclasses.replace(self.config(size, rate, seed), adaptive=self.adaptive)
            for rate in self.learning_rates.grid(size)
        ]
