"""How long starting and updating takes on this machine at several numbers of environments, and what runs cost by it."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from rl_scaling.agents.stack import Stack
from rl_scaling.analysis.costs import Throughput, fit_throughput
from rl_scaling.domains.base import TrialCost
from rl_scaling.domains.device import choose_device
from rl_scaling.domains.rl import stacked
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.memory import PARAMETERS, memory_of
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.domains.rl.training import what_to_measure
from rl_scaling.envs import make_vector
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, MinAtarConfig

_WARM_UP_UPDATES = 2
_PARTS = 6


@dataclass(frozen=True)
class Way:
    """How updates are made.

    Attributes:
        runs: that train side by side, of whose time each has its share.
        dtype: what layers compute in; None: float32.
    """

    runs: int = 1
    dtype: torch.dtype | None = None


def time_start(config: RunConfig, num_envs: int) -> float:
    """Seconds that one environment takes: made, reset, and its random start emulated, by one thread."""
    begun = time.perf_counter()
    environment = dataclasses.replace(config.environment, num_envs=num_envs)
    with closing(make_vector(environment, num_threads=1)) as source:
        source.reset(config.seed)
    return (time.perf_counter() - begun) / num_envs


def time_updates(
    config: RunConfig,
    num_envs: Sequence[int],
    *,
    seconds: float,
    device: torch.device,
    threads: int,
    with_noise_scale: bool = False,
    way: Way | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Train for a few seconds with each number of environments, for `rl_scaling.analysis.costs.fit_throughput`.

    Args:
        config: a run; its number of environments is varied, and its random start left out.
        num_envs: numbers of environments.
        seconds: of measuring, each; starting the environments comes on top.
        device: where the network lives.
        threads: for torch and for the emulator, each.
        with_noise_scale: add the time that measuring the noise scale takes, as often as the run does.
        way: how; None: one run in float32.
        say: hears a line for each.

    Returns:
        One row each: batch_size, seconds (per update, the median over parts of the time), error (of that, relative).

    Raises:
        ConfigError: the environments cannot be made.
    """
    torch.set_num_threads(threads)
    rows = []
    for number in num_envs:
        trial = dataclasses.replace(config, environment=without_random_start(config, number), adaptive=None)
        each = _seconds_per_update(trial, seconds, device, threads, with_noise_scale, way or Way())
        middle, spread = float(np.median(each)), float(np.std(np.log(each), ddof=1))
        say(f"{number:,} environments: {1000 * middle:,.1f} ms an update, {trial.batch_size / middle:,.0f} frames/s")
        rows.append(
            {"batch_size": trial.batch_size, "seconds": middle, "error": spread * math.sqrt(math.pi / 2 / len(each))}
        )
    return pd.DataFrame(rows)


def without_random_start(config: RunConfig, num_envs: int) -> EnvironmentConfig:
    """A run's environment in another number, whose games begin at their beginning and so at once."""
    environment = dataclasses.replace(config.environment, num_envs=num_envs)
    if isinstance(environment, AtariConfig | MinAtarConfig):
        return dataclasses.replace(environment, max_start_steps=0)
    return environment


def _seconds_per_update(
    config: RunConfig, seconds: float, device: torch.device, threads: int, with_noise_scale: bool, way: Way
) -> list[float]:
    """Mean times of `_PARTS` parts of the time, which say how steady it is; a run's share of them."""
    with ExitStack() as sources:
        step = stepping(config, device, threads, way, sources)
        for _ in range(_WARM_UP_UPDATES):
            step()
        plain = [_timed(step, seconds / _PARTS, device) / way.runs for _ in range(_PARTS)]
        share = _share_measured(config)
        if not (with_noise_scale and share):
            return plain
        asked = what_to_measure(config, 0)
        measured = [_timed(step, seconds / _PARTS, device, **asked) / way.runs for _ in range(_PARTS)]
        extra = share * max(0.0, float(np.median(measured) - np.median(plain)))
        return [part + extra for part in plain]


def stepping(
    config: RunConfig, device: torch.device, threads: int, way: Way, sources: ExitStack
) -> Callable[..., object]:
    """One step of a run, or of several side by side, that measures what it is asked for."""
    agents, begun = [], []
    for seed in range(config.seed, config.seed + way.runs):
        source = sources.enter_context(closing(make_vector(config.environment, num_threads=threads)))
        shape, actions = source.observation_shape, source.num_actions or source.action_space
        agents.append(make_agent(config.agent, shape, actions, total_updates=10**9, seed=seed, device=device))
        agents[-1].network.compute_dtype = way.dtype
        begun.append((source, source.reset(seed)))
    if way.runs == 1:
        agents[0].begin(*begun[0])
        return agents[0].step
    stack = Stack(agents)
    stack.begin(*zip(*begun, strict=True))
    return lambda **measure: stack.step([measure] * way.runs)


def _share_measured(config: RunConfig) -> float:
    """The share of rollouts in which the noise scale is measured."""
    rollouts = max(1, 2 * config.noise_scale.every_updates)
    each = config.agent.updates_per_rollout
    return sum(bool(what_to_measure(config, each * rollout)) for rollout in range(rollouts)) / rollouts


def _timed(step: Callable[..., object], seconds: float, device: torch.device, **measure: Any) -> float:
    begun, updates = time.perf_counter(), 0
    while not updates or time.perf_counter() - begun < seconds:
        step(**measure)
        updates += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / updates


# --- what runs cost -----------------------------------------------------------------------------------------------

# More take minutes to start; longer rollouts than these are on the same line.
_MOST_ENVS_MEASURED = 16
MEASURED_SECONDS = 3.0
# A sealed row, and one of a run under way, as JSON.
ROW_BYTES, OPEN_ROW_BYTES = 140, 900
CONFIG_BYTES = 2_000


@dataclass(frozen=True)
class Speed:
    """What was measured of trials side by side, one thread each.

    Attributes:
        rollout: seconds of a rollout with the updates from it and its share of measuring the noise scale, against its
            frames.
        start_seconds: per environment: made, reset, and its random start emulated.
        side_by_side: trials that were measured at once.
        game: that was measured.
        runs: that each of them trained together.
    """

    rollout: Throughput
    start_seconds: float
    side_by_side: int
    game: str
    runs: int = 1

    @property
    def note(self) -> str:
        """What was measured, for people."""
        rates = self.side_by_side * self.rollout.batch / self.rollout.seconds
        said = ", ".join(
            f"{r:,.0f} frames/s at {f:,.0f} frames a rollout" for r, f in zip(rates, self.rollout.batch, strict=True)
        )
        together = f", {self.runs} runs in each" if self.runs > 1 else ""
        return f"{self.game} just now, {self.side_by_side} at a time{together}: {said}; others by a straight line"


def cost_of(config: RunConfig, speed: Speed) -> TrialCost:
    """Disk while it runs: rows as JSON and two checkpoints, as the new one is whole before the old one goes."""
    num_envs = config.environment.num_envs
    rollout = num_envs * config.agent.rollout_steps
    rows = math.ceil(config.frames / max(rollout, config.record_every_frames))
    states = 1 + config.agent.optimizer_states
    rollouts = config.updates / config.agent.updates_per_rollout
    return TrialCost(
        seconds=rollouts * float(speed.rollout.seconds_per_update(rollout)) + num_envs * speed.start_seconds,
        memory_bytes=memory_of(config).total,
        kept_bytes=CONFIG_BYTES + ROW_BYTES * rows,
        open_bytes=OPEN_ROW_BYTES * rows + 2 * 4 * states * PARAMETERS[config.agent.network],
    )


def measure_speed(
    configs: Sequence[RunConfig],
    *,
    side_by_side: int,
    device: str,
    seconds: float,
    dtype: torch.dtype | None = None,
) -> Speed:
    """Train the first run's game for a few seconds with a few environments, in as many processes as run side by side.

    Args:
        configs: runs of one game.
        side_by_side: processes.
        device: "cpu", "cuda" or "auto".
        seconds: of training, for each of two numbers of environments; starting comes on top.
        dtype: what layers compute in; None: float32.
    """
    base, counts = configs[0], [config.environment.num_envs for config in configs]
    larger = min(_MOST_ENVS_MEASURED, max(counts))
    numbers = [min(counts), larger if larger > min(counts) else 2 * min(counts)]
    runs = _side_by_side(configs) if choose_device(device).type == "cpu" and dtype is None else 1
    way = Way(runs, dtype)
    context = multiprocessing.get_context("spawn")  # emulators and torch's threads do not survive a fork
    with ProcessPoolExecutor(side_by_side, mp_context=context) as pool:
        jobs = [pool.submit(_measure, base, numbers, device, seconds, way) for _ in range(side_by_side)]
        measured = [job.result() for job in jobs]
    rows = pd.concat([rows for _, rows in measured]).groupby("batch_size", as_index=False).mean()
    return Speed(
        rollout=fit_throughput(rows),
        start_seconds=sum(start for start, _ in measured) / len(measured),
        side_by_side=side_by_side,
        game=base.environment.name,
        runs=runs,
    )


def _side_by_side(configs: Sequence[RunConfig]) -> int:
    """How many runs like the first one train side by side."""
    if not stacked.can_stack(configs[0]):
        return 1
    groups = Counter(stacked.alike(config) for config in configs if stacked.can_stack(config))
    return min(stacked.MOST_RUNS, max(groups.values()))


def _measure(
    config: RunConfig, numbers: list[int], device: str, seconds: float, way: Way
) -> tuple[float, pd.DataFrame]:
    """Seconds that starting takes per environment, and the times of updates, in frames of a rollout."""
    start = time_start(config, numbers[0])
    rows = time_updates(
        config,
        numbers,
        seconds=seconds,
        device=choose_device(device),
        threads=1,
        with_noise_scale=True,
        way=way,
    )
    rows["batch_size"] = [number * config.agent.rollout_steps for number in numbers]
    return start, rows
