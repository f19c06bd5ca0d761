"""Supervised sweeps by quasi-random search of rate, coefficients and schedule, with a fixed budget of sound trials."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from rl_scaling.analysis.fronts import front
from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig
from rl_scaling.domains.supervised.tasks import OptimizerName, optimizer_of
from rl_scaling.store import Store, list_runs, load_runs
from rl_scaling.sweeps.search import Dimension, remarks, sobol_points
from rl_scaling.sweeps.supervised import Cell, SupervisedGrid

_RATE, _MOMENTUM, _AVERAGE = "learning rate", "1 - momentum", "1 - decay of the average"
_FACTOR, _LENGTH = "final factor", "share of the updates that decay"
_MOST_DRAWN = 3  # times the trials that are wanted


@dataclass(frozen=True, kw_only=True)
class SupervisedSearch:
    """Points of a Sobol sequence for each optimiser and batch size of a grid, in place of its learning rates.

    Attributes:
        grid: what is run, with targets.
        trials: points for each optimiser and batch size that do not diverge, with any seed.
        width: upper bound over lower bound of the learning rate, around the centre that the grid would have.
        decay: search the linear decay of the rate as well: its length and its last factor.

    Raises:
        ConfigError: budgets, no trials, or a width that is no more than 1.
    """

    grid: SupervisedGrid
    trials: int = 32
    width: float = 64.0
    decay: bool = False

    def __post_init__(self) -> None:
        if not self.grid.targets:
            raise ConfigError("a search is for targets: leave --budget out, or the search")
        if self.trials < 1 or not self.width > 1:
            raise ConfigError(f"{self.trials} trials, width {self.width:g}: give 1 or more, and a width above 1")

    def space(self, name: OptimizerName, batch_size: int) -> list[Dimension]:
        """What is searched for an optimiser at a batch size."""
        centre, half = self.grid.learning_rates(name).centre(batch_size), math.sqrt(self.width)
        plain = optimizer_of(name, centre)
        space = [Dimension(_RATE, centre / half, centre * half)]
        space += [Dimension(_MOMENTUM, 0.01, 0.9)] if plain.momentum else []
        space += [Dimension(_AVERAGE, 0.003, 0.5)] if plain.ema else []
        return space + ([Dimension(_FACTOR, 1e-3, 1.0), Dimension(_LENGTH, 0.1, 1.0)] if self.decay else [])

    def cells(self, examples: int) -> list[Cell]:
        """The first points of every optimiser and batch size."""
        return [self._cell(name, size, 0, self.trials, examples) for name, size in self._places()]

    def extended(self, store: Store, examples: int) -> list[Cell]:
        """As many more points as diverged, unless most of what is drawn does; none once there are enough."""
        diverged = {info.run_id for info in list_runs(store.root) if info.status == "diverged"}
        known = {info.run_id for info in list_runs(store.root)}
        cells: list[Cell] = []
        for name, size in self._places():
            most = self._cell(name, size, 0, _MOST_DRAWN * self.trials, examples)
            seeds = len(self.grid.seeds)
            points = [most[first : first + seeds] for first in range(0, len(most), seeds)]
            drawn = [point for point in points if all(config.run_id in known for config in point)]
            lost = sum(any(config.run_id in diverged for config in point) for point in drawn)
            count = min(self.trials - (len(drawn) - lost), len(points) - len(drawn))
            if count > 0:
                cells.append([config for point in points[len(drawn) : len(drawn) + count] for config in point])
        return cells

    def remarks(self, store: Store) -> list[str]:
        """Where the best point of a target lies near a bound of the search: which, and how to move it."""
        runs = load_runs(store.root)
        first = {
            (i.identity.task, i.identity.batch_size, i.identity.setting, i.identity.learning_rate): i
            for i in list_runs(store.root)
        }
        goals = {str(task): self.grid.targets for task in runs["task"].unique()}
        places = {
            (cell[0].task, cell[0].batch_size): place for cell, place in zip(self.cells(1), self._places(), strict=True)
        }
        said: list[str] = []
        for best in front(runs, goals).to_dict("records"):
            key = (best["task"], best["batch_size"])
            if key in places:
                config = first[(*key, best["setting"], best["learning_rate"])].config
                said += [
                    f"{key[0]}, batch {key[1]:,}, to {best['goal']:g}: {remark}"
                    for remark in remarks(self.space(*places[key]), _values(config))
                ]
        return said

    def _places(self) -> list[tuple[OptimizerName, int]]:
        return [(n, size) for n in dict.fromkeys(self.grid.optimizers) for size in sorted(set(self.grid.batch_sizes))]

    def _cell(self, name: OptimizerName, batch_size: int, first: int, count: int, examples: int) -> Cell:
        points = sobol_points(self.space(name, batch_size), first, count)
        return [self._config(name, batch_size, point, seed, examples) for point in points for seed in self.grid.seeds]

    def _config(
        self, name: OptimizerName, batch_size: int, point: dict[str, float], seed: int, examples: int
    ) -> SupervisedConfig:
        optimizer: OptimizerConfig = optimizer_of(name, point[_RATE])
        tuned = {"momentum": _MOMENTUM, "ema": _AVERAGE}
        chosen = {f: float(f"{1 - point[d]:.6g}") for f, d in tuned.items() if d in point}
        schedule = ScheduleConfig()
        if self.decay:
            length = max(1, round(point[_LENGTH] * self.grid.updates_of(batch_size, examples)))
            schedule = ScheduleConfig(name="linear", final_factor=point[_FACTOR], decay_updates=length)
        return self.grid.config(dataclasses.replace(optimizer, **chosen), schedule, batch_size, examples, seed=seed)


def _values(config: dict[str, Any]) -> dict[str, float]:
    """A run's place in every dimension there may be, from its stored config."""
    optimizer, schedule = config["optimizer"], config["schedule"]
    return {
        _RATE: optimizer["learning_rate"],
        _MOMENTUM: 1 - optimizer["momentum"],
        _AVERAGE: 1 - optimizer["ema"],
        _FACTOR: schedule["final_factor"],
        _LENGTH: schedule["decay_updates"] / config["updates"],
    }
