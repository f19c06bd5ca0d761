"""Which arithmetic runs take on this machine, where "auto" leaves it open: tried out before any of them begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing

import torch

from rl_scaling.agents.config import AlgorithmConfig
from rl_scaling.agents.precision import Verdict, judge_bfloat16, lacks_bfloat16
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Hardware
from rl_scaling.domains.device import choose_device
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.domains.rl.timing import without_random_start
from rl_scaling.envs import make_vector

# Enough for the gradient and for its time; emulating more would only delay the start.
_ENVS, _STEPS = 16, 16


def settle_precision(configs: Sequence[RunConfig], hardware: Hardware) -> tuple[Hardware, list[str]]:
    """The hardware with its arithmetic chosen, and what is to be said about that.

    Runs that are settled together get the same: bfloat16 where every kind of them may take it. The rollout that says so
    is one of an untrained agent in up to 16 environments of its own, so that no run notices.

    Args:
        configs: runs, of any number of games and sizes.
        hardware: its `compute_dtype` may be "auto".

    Raises:
        ConfigError: bfloat16 is asked for and this machine has none, or there is no such device.
    """
    asked = hardware.compute_dtype
    if asked == "float32" or not configs:
        return hardware, []
    device = choose_device(hardware.device)
    lack = lacks_bfloat16(device)
    if asked == "bfloat16":
        if lack:
            raise ConfigError(f"{lack}: give --precision float32, or auto")
        return hardware, []
    if lack:
        return _settled(hardware, Verdict("float32", lack))
    kinds = {(c.environment.name, c.agent.kind, c.agent.network): c for c in configs}
    verdicts = []
    for config in kinds.values():
        verdicts.append(_judged(config, device, hardware.threads))
        if verdicts[-1].precision == "float32":
            break
    return _settled(hardware, verdicts[-1])


def _settled(hardware: Hardware, verdict: Verdict) -> tuple[Hardware, list[str]]:
    said = [f"layers compute in {verdict.precision}: {verdict.reason}"]
    return dataclasses.replace(hardware, compute_dtype=verdict.precision), said


def _judged(config: RunConfig, device: torch.device, threads: int) -> Verdict:
    torch.set_num_threads(threads)
    environment = without_random_start(config, min(_ENVS, config.environment.num_envs))
    with closing(make_vector(environment, num_threads=threads)) as source:
        actions = source.num_actions or source.action_space
        agent = make_agent(_shortened(config), source.observation_shape, actions, total_updates=1, device=device)
        agent.begin(source, source.reset(config.seed))
        return judge_bfloat16(agent)


def _shortened(config: RunConfig) -> AlgorithmConfig:
    """The settings with short rollouts, unless their minibatches need long ones."""
    try:
        return dataclasses.replace(config.agent, rollout_steps=min(_STEPS, config.agent.rollout_steps))
    except ConfigError:
        return config.agent
