"""One task of a supervised sweep: which runs it is made of, and what a search tunes. It imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rl_scaling.config import ConfigError, require, require_positive
from rl_scaling.domains.base import TaskPlan
from rl_scaling.domains.supervised.config import (
    AdaptiveExamplesConfig,
    Budget,
    ScheduleConfig,
    SupervisedConfig,
    updates_of_epochs,
)

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
        """See `Config.check`."""
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
            seed: of the run.
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
