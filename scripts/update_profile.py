"""Where the time of one A2C update goes: its parts one by one, in milliseconds.

    python scripts/update_profile.py [--threads 2] [--num-envs 16]

Runs on the CPU. Start it with OMP_WAIT_POLICY=passive or active to compare the two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from torch import nn

from rl_scaling.agents import A2C
from rl_scaling.agents.config import A2CConfig
from rl_scaling.envs import VectorSource, available_cpus, make_vector
from rl_scaling.envs.config import AtariConfig


def median_ms(work: Callable[[], object], times: int) -> float:
    """Median milliseconds of one call."""
    work()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return 1000 * statistics.median(taken)


def parts_of(agent: A2C, source: VectorSource, num_envs: int) -> dict[str, Callable[[], object]]:
    """What to time, by name."""
    network, steps = agent.network, agent.config.rollout_steps
    parameters = list(network.parameters())
    optimizer = torch.optim.RMSprop(parameters, lr=1e-9)
    random = np.random.default_rng(0)
    small = torch.randint(0, 255, (num_envs, 4, 84, 84), dtype=torch.uint8)
    large = torch.randint(0, 255, (num_envs * steps, 4, 84, 84), dtype=torch.uint8)

    def emulate() -> None:
        for _ in range(steps):
            source.step(random.integers(source.num_actions, size=num_envs))

    @torch.no_grad()
    def act() -> None:
        for _ in range(steps + 1):
            network(small)

    def differentiate() -> None:
        logits, values = network(large)
        torch.autograd.grad(logits.sum() + values.sum(), parameters)

    def optimise() -> None:
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()

    return {
        "a whole update": agent.step,
        "the same, measuring 8 groups and 8 frames": lambda: agent.step(num_groups=8, frame_gradients=8),
        f"the emulator, {steps} steps": emulate,
        f"forward, {steps + 1} passes of {num_envs}": act,
        f"forward, one pass of {num_envs * steps}": torch.no_grad()(lambda: network(large)),
        f"forward and backward of {num_envs * steps}": differentiate,
        "clipping and optimiser": optimise,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--times", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = AtariConfig(game="Breakout", num_envs=options.num_envs, max_start_steps=0)
    with closing(make_vector(config, num_threads=options.threads)) as source:
        agent = A2C(A2CConfig(), source.observation_shape, source.num_actions, total_updates=10**9)
        agent.begin(source, source.reset(0))
        agent.step()  # gradients and buffers are there from now on
        for name, work in parts_of(agent, source, options.num_envs).items():
            print(f"{name:45} {median_ms(work, options.times):8.1f} ms")


if __name__ == "__main__":
    main()
