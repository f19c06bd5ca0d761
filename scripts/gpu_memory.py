"""Start many environments, train for a few seconds, and compare memory with its estimate: a part of gpu_check.sh.

    python scripts/gpu_memory.py --num-envs 1024 --device cuda

Prints one JSON object. Environments start one after the other, in about 0.15 seconds each: what is not started after
--start-seconds is not waited for, and the object says how many there were.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import resource
import sys
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from rl_scaling.agents.config import A2CConfig
from rl_scaling.config import ConfigError
from rl_scaling.domains.device import choose_device
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.memory import memory_of
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.envs import VectorSource, available_cpus, find_game, make_vector
from rl_scaling.envs.config import AtariConfig

WARM_UP_UPDATES = 3  # the second captures CUDA graphs


class TooLong(Exception):
    """Not all environments started in time."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="Breakout")
    parser.add_argument("--network", choices=["nature", "small"], default="nature")
    parser.add_argument("--num-envs", type=int, default=256, help="an even number (default 256)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--threads", type=int, default=available_cpus(), help="of the emulators (default: every core)")
    parser.add_argument("--start-seconds", type=float, default=float("inf"), help="for starting environments")
    parser.add_argument("--seconds", type=float, default=5.0, help="of training that are measured (default 5)")
    parser.add_argument("--lock", type=Path, help="file whose lock is held while speed is measured")
    return parser.parse_args()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Start, train, compare."""
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    # Without the random start, which is emulation and nothing else.
    environment = AtariConfig(game=find_game(args.game).name, num_envs=args.num_envs, max_start_steps=0)
    config = RunConfig(environment=environment, agent=A2CConfig(network=args.network))
    begun, started = time.monotonic(), 0

    def tell(done: int, total: int) -> None:
        nonlocal started
        started = min(done, args.num_envs)
        if time.monotonic() - begun > args.start_seconds and done < total:
            raise TooLong

    found: dict[str, Any] = {"num_envs": args.num_envs, "device": str(device), "batch_size": config.batch_size}
    host, on_device = memory_of(config).on(device)
    found |= {"host_bytes_estimated": round(host), "device_bytes_estimated": round(on_device)}
    try:
        source = make_vector(environment, num_threads=args.threads, progress=tell, alternate=True)
        with closing(source):
            observations = source.reset(0)
            found["start_seconds"] = round(time.monotonic() - begun, 1)
            found |= _train(config, source, observations, device, args)
    except TooLong:
        found["start_seconds"] = round(time.monotonic() - begun, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found |= {"started": started, "host_bytes": peak}
    if device.type == "cuda":
        found |= {
            "device_bytes": torch.cuda.max_memory_allocated(),
            "device_bytes_held": torch.cuda.max_memory_reserved(),
        }
    return found


def _train(
    config: RunConfig, source: VectorSource, observations: Any, device: torch.device, args: argparse.Namespace
) -> dict[str, Any]:
    """Updates as `rl-scaling train` makes them, one of them measured, and their speed."""
    agent = make_agent(config.agent, source.observation_shape, source.num_actions, total_updates=10**9, device=device)
    agent.begin(source, observations)
    noise = config.noise_scale
    for _ in range(WARM_UP_UPDATES):
        agent.step()
    agent.step(num_groups=noise.groups, frame_gradients=noise.frame_gradients)
    with _alone(args.lock):
        begun, frames = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begun) < args.seconds:
            frames += agent.step().frames
            if device.type == "cuda":
                torch.cuda.synchronize()
    return {"frames_per_second": round(frames / elapsed, 1)}


@contextlib.contextmanager
def _alone(lock: Path | None) -> Generator[None]:
    if lock is None:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Exit 0 measured, even where not all environments started; 2 bad arguments."""
    try:
        print(json.dumps(measure(arguments()), indent=2))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
