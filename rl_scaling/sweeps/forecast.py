"""What a sweep takes in time, memory and disk, said before it starts.

`Forecast` adds up what trials of any domain cost. For reinforcement learning the costs follow from a throughput that
`measure_speed` measures on this machine.
"""

from __future__ import annotations

import heapq
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from rl_scaling.agents.config import A2CConfig
from rl_scaling.analysis.throughput import Throughput, fit_throughput
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.records import SEALED
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import SweepPlan

# More take minutes to start; longer rollouts than these are on the same line.
_MOST_ENVS_MEASURED = 16
# A sealed row, and one of a run under way, as JSON.
ROW_BYTES, OPEN_ROW_BYTES = 140, 900
CONFIG_BYTES = 2_000
_PARAMETERS = {"nature": 1_700_000, "small": 680_000, "mlp": 10_000}


@dataclass(frozen=True)
class TrialCost:
    """What one trial takes.

    Attributes:
        seconds: of one worker's time.
        memory_bytes: at its peak.
        kept_bytes: on disk, what stays.
        open_bytes: on disk as well, while it runs.
    """

    seconds: float
    memory_bytes: float
    kept_bytes: float
    open_bytes: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is left of a sweep.

    Attributes:
        trials: still to be run.
        seconds: of all workers' work added up.
        longest_seconds: of the longest trial.
        extension_seconds: on top of `seconds`, if every grid were extended on one side as far as it may be.
        memory_bytes: of the largest trials side by side.
        kept_bytes: on disk, what stays.
        open_bytes: on disk as well, while it runs.
        note: what it rests on, for people.
    """

    trials: int
    seconds: float
    longest_seconds: float
    extension_seconds: float = 0.0
    memory_bytes: float
    kept_bytes: float
    open_bytes: float
    note: str = ""

    @classmethod
    def of(cls, costs: Sequence[TrialCost], workers: int, **others: Any) -> Self:
        """The sum over trials of which `workers` run at a time; `others` are fields that do not follow from them."""

        def side_by_side(values: Iterator[float]) -> float:
            return sum(heapq.nlargest(workers, values))

        return cls(
            trials=len(costs),
            seconds=sum(cost.seconds for cost in costs),
            longest_seconds=max((cost.seconds for cost in costs), default=0.0),
            memory_bytes=side_by_side(cost.memory_bytes for cost in costs),
            kept_bytes=sum(cost.kept_bytes for cost in costs),
            open_bytes=side_by_side(cost.open_bytes for cost in costs),
            **others,
        )

    @property
    def disk_bytes(self) -> float:
        """At its peak."""
        return self.kept_bytes + self.open_bytes


@dataclass(frozen=True, kw_only=True)
class SweepForecast(Forecast):
    """What is left of a sweep of reinforcement learning.

    Its trials count one further seed run for each batch size and seed of `best_seeds`; extensions of grids come on top.

    Attributes:
        task, store: which sweep.
        frames: of the trials.
    """

    task: str
    store: str
    frames: int


@dataclass(frozen=True)
class Speed:
    """What was measured of trials side by side, one thread each.

    Attributes:
        rollout: seconds of a rollout with the updates from it and its share of measuring the noise scale, against its
            frames.
        start_seconds: per environment: made, reset, and its random start emulated.
        side_by_side: trials that were measured at once.
        game: that was measured.
    """

    rollout: Throughput
    start_seconds: float
    side_by_side: int
    game: str


def wall_seconds(forecasts: Sequence[Forecast], workers: int, *, extended: bool = False) -> float:
    """The least time that sweeps take which share their workers; `extended`: with the extensions of their grids."""
    longest = max((f.longest_seconds for f in forecasts), default=0.0)
    return max(longest, sum(f.seconds + extended * f.extension_seconds for f in forecasts) / workers)


def forecast(plan: SweepPlan, store: Store, speed: Speed, workers: int) -> SweepForecast:
    """What is left of one plan.

    Raises:
        StoreError: the store is damaged.
    """
    left = [config for config in _with_best_seeds(plan) if store.status(config.run_id) not in SEALED]
    further = [config for config in _extensions(plan) if store.status(config.run_id) not in SEALED]
    return SweepForecast.of(
        [_cost(config, speed) for config in left],
        workers,
        task=plan.base.task,
        store=str(store.root),
        frames=sum(config.frames for config in left),
        extension_seconds=sum(_seconds(config, speed) for config in further),
        note=f"measured on {speed.game}, {speed.side_by_side} side by side",
    )


def _with_best_seeds(plan: SweepPlan) -> list[RunConfig]:
    """The first trials, and the further seeds as if the middle rate of each grid were the best."""
    first = plan.trials()
    further = []
    for num_envs in sorted(set(plan.num_envs)):
        grid = plan.learning_rates.grid(plan.base.agent.batch_size(num_envs))
        further += [plan.trial(num_envs, grid[len(grid) // 2], seed) for seed in plan.best_seeds]
    return list({config.run_id: config for config in [*first, *further]}.values())


def _extensions(plan: SweepPlan) -> Iterator[RunConfig]:
    """Every grid continued upwards."""
    for num_envs in sorted(set(plan.num_envs)):
        batch_size = plan.base.agent.batch_size(num_envs)
        rates = plan.learning_rates.grid(batch_size)
        while (rate := plan.learning_rates.beyond(rates, max(rates), batch_size)) is not None:
            rates.append(rate)
            yield from (plan.trial(num_envs, rate, seed) for seed in plan.seeds)


def _cost(config: RunConfig, speed: Speed) -> TrialCost:
    """Disk while it runs: rows as JSON and two checkpoints, as the new one is whole before the old one goes."""
    from rl_scaling.domains.rl.memory import memory_of  # with torch

    rollout = config.environment.num_envs * config.agent.rollout_steps
    rows = math.ceil(config.frames / max(rollout, config.record_every_frames))
    states = 2 if isinstance(config.agent, A2CConfig) else 3  # weights, and the optimiser's one or two
    return TrialCost(
        seconds=_seconds(config, speed),
        memory_bytes=memory_of(config).total,
        kept_bytes=CONFIG_BYTES + ROW_BYTES * rows,
        open_bytes=OPEN_ROW_BYTES * rows + 2 * 4 * states * _PARAMETERS[config.agent.network],
    )


def _seconds(config: RunConfig, speed: Speed) -> float:
    num_envs = config.environment.num_envs
    rollouts = config.updates / config.agent.updates_per_rollout
    each = float(speed.rollout.seconds_per_update(num_envs * config.agent.rollout_steps))
    return rollouts * each + num_envs * speed.start_seconds


def measure_speed(plans: Mapping[Path, SweepPlan], *, workers: int, device: str, seconds: float) -> Speed:
    """Train the first plan's game for a few seconds with a few environments, in as many processes as there are workers.

    Args:
        plans: the sweeps by the folders of their stores.
        workers: trials side by side.
        device: "cpu", "cuda" or "auto".
        seconds: of training, for each of two numbers of environments; starting comes on top.
    """
    plan = next(iter(plans.values()))
    base, smallest = plan.base, min(plan.num_envs)
    larger = min(_MOST_ENVS_MEASURED, max(plan.num_envs))
    numbers = [smallest, larger if larger > smallest else 2 * smallest]
    context = multiprocessing.get_context("spawn")  # emulators and torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [pool.submit(_measure, base, numbers, device, seconds) for _ in range(workers)]
        measured = [job.result() for job in jobs]
    rows = pd.concat([rows for _, rows in measured]).groupby("batch_size", as_index=False).mean()
    return Speed(
        rollout=fit_throughput(rows),
        start_seconds=sum(start for start, _ in measured) / len(measured),
        side_by_side=workers,
        game=base.environment.name,
    )


def _measure(config: RunConfig, numbers: list[int], device: str, seconds: float) -> tuple[float, pd.DataFrame]:
    """Seconds that starting takes per environment, and the times of updates, in frames of a rollout."""
    from rl_scaling.domains.rl.timing import time_start, time_updates
    from rl_scaling.sweeps.trial import choose_device

    start = time_start(config, numbers[0])
    rows = time_updates(
        config, numbers, seconds=seconds, device=choose_device(device), threads=1, with_noise_scale=True
    )
    rows["batch_size"] = [number * config.agent.rollout_steps for number in numbers]
    return start, rows
