"""How long starting and updating takes on this machine at several numbers of environments."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import torch

from rl_scaling.agents import Agent, make_agent
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.training import what_to_measure
from rl_scaling.envs import make_vector
from rl_scaling.envs.config import AtariConfig

_WARM_UP_UPDATES = 2
_PARTS = 6


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
    say: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Train for a few seconds with each number of environments, for `rl_scaling.analysis.throughput.fit_throughput`.

    Args:
        config: a run; its number of environments is varied, and its random start left out.
        num_envs: numbers of environments.
        seconds: of measuring, each; starting the environments comes on top.
        device: where the network lives.
        threads: for torch and for the emulator, each.
        with_noise_scale: add the time that measuring the noise scale takes, as often as the run does.
        say: hears a line for each.

    Returns:
        One row each: batch_size, seconds (per update, the median over parts of the time), error (of that, relative).

    Raises:
        ConfigError: the environments cannot be made.
    """
    torch.set_num_threads(threads)
    rows = []
    for number in num_envs:
        trial = dataclasses.replace(config, environment=_without_random_start(config, number), adaptive=None)
        each = _seconds_per_update(trial, seconds, device, threads, with_noise_scale)
        middle, spread = float(np.median(each)), float(np.std(np.log(each), ddof=1))
        say(f"{number:,} environments: {1000 * middle:,.1f} ms an update, {trial.batch_size / middle:,.0f} frames/s")
        rows.append(
            {"batch_size": trial.batch_size, "seconds": middle, "error": spread * math.sqrt(math.pi / 2 / len(each))}
        )
    return pd.DataFrame(rows)


def _without_random_start(config: RunConfig, num_envs: int):
    environment = dataclasses.replace(config.environment, num_envs=num_envs)
    return dataclasses.replace(environment, max_start_steps=0) if isinstance(environment, AtariConfig) else environment


def _seconds_per_update(
    config: RunConfig, seconds: float, device: torch.device, threads: int, with_noise_scale: bool
) -> list[float]:
    """Mean times of `_PARTS` parts of the time, which say how steady it is."""
    with closing(make_vector(config.environment, num_threads=threads)) as source:
        agent = make_agent(
            config.agent, source.observation_shape, source.num_actions, total_updates=10**9, device=device
        )
        agent.begin(source, source.reset(config.seed))
        for _ in range(_WARM_UP_UPDATES):
            agent.step()
        plain = [_timed(agent, seconds / _PARTS, device) for _ in range(_PARTS)]
        share = _share_measured(config)
        if not (with_noise_scale and share):
            return plain
        measured = [_timed(agent, seconds / _PARTS, device, **what_to_measure(config, 0)) for _ in range(_PARTS)]
        extra = share * max(0.0, float(np.median(measured) - np.median(plain)))
        return [part + extra for part in plain]


def _share_measured(config: RunConfig) -> float:
    """The share of rollouts in which the noise scale is measured."""
    rollouts = max(1, 2 * config.noise_scale.every_updates)
    each = config.agent.updates_per_rollout
    return sum(bool(what_to_measure(config, each * rollout)) for rollout in range(rollouts)) / rollouts


def _timed(agent: Agent[Any], seconds: float, device: torch.device, **measure: Any) -> float:
    begun, updates = time.perf_counter(), 0
    while not updates or time.perf_counter() - begun < seconds:
        agent.step(**measure)
        updates += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / updates
