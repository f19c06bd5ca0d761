"""What a sweep runs: a grid of batch sizes, learning rates and seeds, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rl_scaling.config import ConfigError, rate_ratio, require, to_dict
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, RunConfig, run_config_from_dict
from rl_scaling.store import Store, StoreError
from rl_scaling.store.upgrade import label_of_plan


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """A grid of learning rates for each batch size, centred on eq. A.3 of McCandlish et al. 2018.

    rate(B) = reference_rate * ((1 + turn / reference_batch) / (1 + turn / B)) ** power, which is A.3 with the maximal
    rate expressed by the rate known to work at one batch size.

    Attributes:
        reference_rate: a rate that works at `reference_batch` frames.
        turn: B* of A.3 in frames, the batch size around which the best rate stops growing.
        power: alpha of A.3: 1 for SGD, 0.5 to 1 for RMSProp and Adam.
        count: rates per batch size.
        spacing: ratio of neighbouring rates.
        max_extensions: rates that may be added beyond each end of a grid whose best value lies on that end.
        fixed: these rates for every batch size instead.
    """

    reference_rate: float = 7e-4
    reference_batch: int = 80
    turn: float = 1000.0
    power: float = 0.5
    count: int = 3
    spacing: float = 2.0
    max_extensions: int = 2
    fixed: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for rate in (*self.fixed, self.reference_rate):
            if not (math.isfinite(rate) and rate > 0):
                raise ConfigError(f"learning rate {rate} in the grid: give positive numbers")
        if self.count < 1 or self.spacing <= 1:
            raise ConfigError("the grid of learning rates needs a count of 1 or more and a spacing above 1")

    def centre(self, batch_size: int) -> float:
        ratio = rate_ratio(batch_size, self.reference_batch, turn=self.turn, power=self.power)
        return self.reference_rate * ratio

    def grid(self, batch_size: int) -> list[float]:
        """The rates tried first, ascending, rounded to three digits so that they read well and hash equal."""
        if self.fixed:
            return sorted(set(self.fixed))
        offsets = [i - (self.count - 1) / 2 for i in range(self.count)]
        return [_rounded(self.centre(batch_size) * self.spacing**offset) for offset in offsets]

    def beyond(self, tried: Sequence[float], best: float, batch_size: int) -> float | None:
        """The next rate to try when `best` lies on an edge of what was tried; None if it does not, or enough were."""
        lowest, highest = min(tried), max(tried)
        first = self.grid(batch_size)
        if best == highest and sum(rate > max(first) for rate in tried) < self.max_extensions:
            return _rounded(highest * self.spacing)
        if best == lowest and sum(rate < min(first) for rate in tried) < self.max_extensions:
            return _rounded(lowest / self.spacing)
        return None


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A grid of runs of one task.

    Attributes:
        base: the run that all trials are variants of.
        num_envs: numbers of environments, which set the batch sizes.
        seeds: seeds of every combination.
        best_seeds: further seeds, at the learning rates alone that turn out best at their batch size.
        goals: scores whose Pareto fronts are wanted; kept with the sweep for `fit` and `report`.
        adaptive: batches that follow the noise scale, run after the fixed ones and beginning with `min_envs`, over the
            learning rates that are tried first there.
    """

    base: RunConfig
    num_envs: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    best_seeds: tuple[int, ...] = ()
    learning_rates: LearningRates = field(default_factory=LearningRates)
    goals: tuple[float, ...] = ()
    adaptive: tuple[AdaptiveBatchConfig, ...] = ()

    def __post_init__(self) -> None:
        if not self.num_envs or not self.seeds:
            raise ConfigError("a sweep needs at least one number of environments and one seed")
        for seed in (*self.seeds, *self.best_seeds):
            require(seed >= 0, f"seed is {seed}: give 0 or more")
        for goal in self.goals:
            if not math.isfinite(goal):
                raise ConfigError(f"goal {goal} is not a score: give finite numbers")

    def trials(self) -> list[RunConfig]:
        """The first trials, the cheap small batches of the first seed coming first."""
        return [
            self.trial(num_envs, rate, seed)
            for seed in self.seeds
            for num_envs in sorted(set(self.num_envs))
            for rate in self.learning_rates.grid(self.base.agent.batch_size(num_envs))
        ] + [
            dataclasses.replace(self.trial(adaptive.min_envs, rate, seed), adaptive=adaptive)
            for seed in self.seeds
            for adaptive in self.adaptive
            for rate in self.learning_rates.grid(self.base.agent.batch_size(adaptive.min_envs))
        ]

    def trial(self, num_envs: int, learning_rate: float, seed: int) -> RunConfig:
        return dataclasses.replace(
            self.base,
            environment=dataclasses.replace(self.base.environment, num_envs=num_envs),
            agent=dataclasses.replace(self.base.agent, learning_rate=learning_rate),
            seed=seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the store."""
        return {
            "base": to_dict(self.base),
            "num_envs": list(self.num_envs),
            "seeds": list(self.seeds),
            "best_seeds": list(self.best_seeds),
            "learning_rates": dataclasses.asdict(self.learning_rates),
            "goals": list(self.goals),
            "adaptive": [to_dict(adaptive) for adaptive in self.adaptive],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> SweepPlan:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: it is not a plan of this version.
        """
        try:
            rates = {**plain["learning_rates"], "fixed": tuple(plain["learning_rates"]["fixed"])}
            return cls(
                base=run_config_from_dict(plain["base"]),
                num_envs=tuple(plain["num_envs"]),
                seeds=tuple(plain["seeds"]),
                best_seeds=tuple(plain.get("best_seeds", ())),
                learning_rates=LearningRates(**rates),
                goals=tuple(plain["goals"]),
                adaptive=tuple(AdaptiveBatchConfig(**adaptive) for adaptive in plain.get("adaptive", ())),
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ConfigError(f"not a sweep's plan: {error}") from error


def kept_goals(store: Store) -> dict[str, tuple[float, ...]]:
    """The goals of every task whose sweep a store keeps, whatever its domain.

    Raises:
        StoreError: the file is damaged, or of another version.
    """
    plain = store.load_plan()
    if plain and isinstance(plain.get("goals_by_task"), dict):
        return {label_of_plan(task): tuple(map(float, goals)) for task, goals in plain["goals_by_task"].items()}
    plan = read_plan(store)
    return {plan.base.task: plan.goals} if plan else {}


def keep_goals(store: Store, goals: Mapping[str, Sequence[float]]) -> None:
    """Keep the goals of the tasks of a sweep that has no other plan, beside those kept before.

    Raises:
        ConfigError: the store holds a sweep of another domain.
        StoreError: the folder cannot be written to.
    """
    if read_plan(store) is not None:
        raise ConfigError(f"{store.root} holds a sweep of another domain: give another --out")
    kept = kept_goals(store)
    joined = {task: sorted({*kept.get(task, ()), *goals.get(task, ())}) for task in {**kept, **goals}}
    store.save_plan({"goals_by_task": joined})


def read_plan(store: Store) -> SweepPlan | None:
    """The plan kept in a store; None if there is none, or that of another domain.

    Raises:
        StoreError: the file is damaged, or of another version.
    """
    plain = store.load_plan()
    try:
        return SweepPlan.from_dict(plain) if plain and "goals_by_task" not in plain else None
    except ConfigError as error:
        raise StoreError(f"{store.root / 'sweep.json'}: {error}; move it away to go on without it") from error
