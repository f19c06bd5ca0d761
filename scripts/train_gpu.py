"""Train on one GPU and many cores: emulation on every core, overlapped with acting.

    python scripts/train_gpu.py --game Breakout --num-envs 256 --frames 1e7 --out runs/gpu
    python scripts/train_gpu.py --algorithm ppo --num-envs 128
    python scripts/train_gpu.py --bf16                  # after a check of the gradient on one rollout

A recipe to change. What it writes is what `rl-scaling train a2c` or `ppo` writes: `rl-scaling report` reads it, and the
same command resumes after Ctrl-C. It runs without a GPU too, for trying out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from rl_scaling import run
from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.agents.precision import MOST_GRADIENT_ERROR, lacks_bfloat16
from rl_scaling.cli.live import Interruptible
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Hardware
from rl_scaling.domains.device import choose_device
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.registry import make_agent
from rl_scaling.envs import available_cpus, find_game, make_vector
from rl_scaling.envs.config import AtariConfig
from rl_scaling.records import TrainingRecord
from rl_scaling.store import StoreError
from rl_scaling.sweeps.trial import RunEvent
from rl_scaling.validation.throughput import emulator_frames_per_second


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="Breakout")
    parser.add_argument("--algorithm", choices=["a2c", "ppo"], default="a2c")
    parser.add_argument("--network", choices=["nature", "small"], default="nature")
    parser.add_argument("--num-envs", type=int, default=256, help="an even number (default 256)")
    parser.add_argument("--learning-rate", type=float, help="default: the algorithm's own, for its usual batch")
    parser.add_argument("--frames", type=float, default=1e7, help="as the agent sees them (default 1e7)")
    parser.add_argument("--record-every-frames", type=float, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--threads", type=int, default=available_cpus(), help="of the emulators (default: every core)")
    parser.add_argument("--bf16", action="store_true", help="layers compute in bfloat16, after a check of the gradient")
    parser.add_argument("--seconds", type=float, default=5.0, help="for measuring the emulators alone (default 5)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    return parser.parse_args()


def run_config(args: argparse.Namespace) -> RunConfig:
    """The run that the arguments describe."""
    rate = {} if args.learning_rate is None else {"learning_rate": args.learning_rate}
    algorithm = A2CConfig if args.algorithm == "a2c" else PPOConfig
    return RunConfig(
        environment=AtariConfig(game=find_game(args.game).name, num_envs=args.num_envs),
        agent=algorithm(network=args.network, **rate),
        frames=args.frames,
        seed=args.seed,
        record_every_frames=args.record_every_frames,
    )


def require_close_gradient(config: RunConfig, device: torch.device, threads: int) -> None:
    """Compare bfloat16's gradient with float32's on a rollout of the untrained network.

    Raises:
        ConfigError: they differ by too much, or the device has no such arithmetic.
    """
    if lack := lacks_bfloat16(device):
        raise ConfigError(f"{lack}: leave --bf16 out")
    with closing(make_vector(config.environment, num_threads=threads, alternate=True)) as source:
        agent = make_agent(config.agent, source.observation_shape, source.num_actions, total_updates=1, device=device)
        agent.begin(source, source.reset(config.seed))
        error = agent.gradient_error(torch.bfloat16)
    print(f"bfloat16's gradient is {error:.1%} off float32's on {config.batch_size:,} frames")
    if error > MOST_GRADIENT_ERROR:
        raise ConfigError(f"that is more than {MOST_GRADIENT_ERROR:.0%}: leave --bf16 out")


def listener(alone: float) -> Callable[[RunEvent], None]:
    """Prints every record, its speed beside that of the emulators alone."""

    def listen(record: RunEvent) -> None:
        if not isinstance(record, TrainingRecord):
            return
        speed = f"{record.frames_per_second:,.0f} frames/s, {record.frames_per_second / alone:.0%} of the emulators"
        noise = f"B_simple {record.noise_scale:,.0f} ({record.noise_scale_low:,.0f} to {record.noise_scale_high:,.0f})"
        print(f"{record.frames:,} frames: {speed}; score {record.score:,.1f}; {noise} frames", flush=True)

    return listen


def train(args: argparse.Namespace) -> int:
    """Check, measure, train."""
    torch.set_num_threads(args.threads)
    config, device = run_config(args), choose_device(args.device)
    print(f"{config.task} on {device}, batch {config.batch_size:,} frames, run {config.run_id} in {args.out}")
    if args.bf16:
        require_close_gradient(config, device, args.threads)
    alone = emulator_frames_per_second(args.game, args.num_envs, threads=args.threads, seconds=args.seconds)
    dtype = "bfloat16" if args.bf16 else "float32"
    hardware = Hardware(device=str(device), threads=args.threads, alternate=True, compute_dtype=dtype)
    print(f"the emulators alone: {alone:,.0f} frames/s on {args.threads} threads")
    with Interruptible() as stop:
        status = run(config, args.out, hardware=hardware, listen=listener(alone), asked_to_stop=lambda: stop.asked)
    print(f"{status}: {args.out / config.run_id}")
    return 1 if status == "interrupted" else 0


def main() -> int:
    """Exit 0 done, 1 failed or interrupted, 2 bad arguments."""
    try:
        return train(arguments())
    except (ConfigError, StoreError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


if __name__ == "__main__":
    sys.exit(main())
