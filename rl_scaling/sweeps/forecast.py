"""What a sweep will take: trials, frames, time, memory and disk, from a throughput measured on this machine."""

from __future__ import annotations

import dataclasses
import heapq
import math
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from rl_scaling.agents.config import A2CConfig
from rl_scaling.analysis.throughput import Throughput, fit_throughput
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.memory import memory_of
from rl_scaling.envs import make_vector
from rl_scaling.records import SEALED
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import SweepPlan
from rl_scaling.sweeps.probe import probe
from rl_scaling.sweeps.trial import choose_device

# More take minutes to start; longer rollouts than these are on the same line.
_MOST_ENVS_MEASURED = 16
# A sealed row, and one of a run under way, as JSON.
ROW_BYTES, OPEN_ROW_BYTES = 140, 900
CONFIG_BYTES = 2_000
_PARAMETERS = {"nature": 1_700_000, "small": 680_000, "mlp": 10_000}


@dataclass(frozen=True)
class Speed:
    """What was measured of trials side by side, one thread each.

    Attributes:
        rollout: seconds of a rollout with the updates from it and its share of measuring the noise scale, against its
            frames.
        start_seconds: per environment: made, reset, and its random start emulated.
        side_by_side: trials that were measured at once.
        game: the game.
    """

    rollout: Throughput
    start_seconds: float
    side_by_side: int
    game: str


@dataclass(frozen=True)
class Forecast:
    """What is left of a sweep.

    Attributes:
        task, store: which sweep.
        trials: still to be run, with one further seed run for each batch size and seed of `best_seeds`; extensions of
            grids come on top.
        frames: of these.
        seconds: of all workers' work added up.
        extension_seconds: on top, if every grid were extended on one side as far as it may be.
        longest_seconds: of the longest trial.
        memory_bytes: of the largest trials side by side.
        kept_bytes: on disk, what stays.
        open_bytes: on disk as well, while it runs.
    """

    task: str
    store: str
    trials: int
    frames: int
    seconds: float
    extension_seconds: float
    longest_seconds: float
    memory_bytes: float
    kept_bytes: float
    open_bytes: float


def wall_seconds(forecasts: Sequence[Forecast], workers: int, *, extended: bool = False) -> float:
    """How long sweeps that share their workers take at least; `extended`: with the extensions of their grids."""
    longest = max((f.longest_seconds for f in forecasts), default=0.0)
    return max(longest, sum(f.seconds + extended * f.extension_seconds for f in forecasts) / workers)


def forecast(plan: SweepPlan, store: Store, speed: Speed, workers: int) -> Forecast:
    """What is left of one plan.

    Raises:
        StoreError: the store is damaged.
    """
    left = [config for config in _with_best_seeds(plan) if store.status(config.run_id) not in SEALED]
    further = [config for config in _extensions(plan) if store.status(config.run_id) not in SEALED]
    seconds = [_seconds(config, speed) for config in left]
    memory = heapq.nlargest(workers, (memory_of(config).total for config in left))
    return Forecast(
        task=plan.base.task,
        store=str(store.root),
        trials=len(left),
        frames=sum(config.frames for config in left),
        seconds=sum(seconds),
        extension_seconds=sum(_seconds(config, speed) for config in further),
        longest_seconds=max(seconds, default=0.0),
        memory_bytes=sum(memory),
        kept_bytes=sum(_kept_bytes(config) for config in left),
        open_bytes=sum(heapq.nlargest(workers, (_open_bytes(config) for config in left))),
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


def _seconds(config: RunConfig, speed: Speed) -> float:
    num_envs = config.environment.num_envs
    rollouts = config.updates / config.agent.updates_per_rollout
    each = float(speed.rollout.seconds_per_update(num_envs * config.agent.rollout_steps))
    return rollouts * each + num_envs * speed.start_seconds


def _rows(config: RunConfig) -> int:
    rollout = config.environment.num_envs * config.agent.rollout_steps
    return math.ceil(config.frames / max(rollout, config.record_every_frames))


def _kept_bytes(config: RunConfig) -> float:
    return CONFIG_BYTES + ROW_BYTES * _rows(config)


def _open_bytes(config: RunConfig) -> float:
    """Rows as JSON and two checkpoints, for the new one is whole before the old one goes."""
    states = 2 if isinstance(config.agent, A2CConfig) else 3  # weights, and the optimiser's one or two
    return OPEN_ROW_BYTES * _rows(config) + 2 * 4 * states * _PARAMETERS[config.agent.network]


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
    """Seconds that starting takes per environment, and the probe's rows, in frames of a rollout."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    environment = dataclasses.replace(config.environment, num_envs=numbers[0])
    with closing(make_vector(environment, num_threads=1)) as source:
        source.reset(config.seed)
    start = (time.perf_counter() - begun) / numbers[0]
    rows = probe(config, numbers, seconds=seconds, device=choose_device(device), threads=1, with_noise_scale=True)
    rows["batch_size"] = [number * config.agent.rollout_steps for number in numbers]
    return start, rows
