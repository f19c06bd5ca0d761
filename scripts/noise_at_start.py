"""The noise scale at the start of training, for all seven games: one short A2C run each, measured at every update.

    python scripts/noise_at_start.py      # seven games: 560,000 frames, as many at once as there are cores
    python scripts/noise_at_start.py --frames 4000 --num-envs 8       # to see that it works
    python scripts/noise_at_start.py --csv > noise.csv

Runs are kept in one store (--out); the same command resumes after a stop, and only prints the table when all are done.
B_simple is pooled over all frames of a run, so "the start" is its first --frames frames: the policy moves meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# Read when torch is loaded: see rl_scaling.cli.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pandas as pd

from rl_scaling import run
from rl_scaling.agents.config import A2CConfig
from rl_scaling.analysis import noise_over_training
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Hardware
from rl_scaling.domains.rl.config import NoiseScaleConfig, RunConfig
from rl_scaling.envs import GAMES, available_cpus, find_game
from rl_scaling.envs.config import AtariConfig
from rl_scaling.estimates import Estimate
from rl_scaling.store import StoreError, load_runs

COLUMNS = ["game", "batch", "frames", "updates", "B_simple", "low", "high", "design_effect"]


def run_config(game: str, num_envs: int, frames: int, learning_rate: float, seed: int) -> RunConfig:
    """The small network with torch's RMSProp, as in results/breakout-a2c, and groups of a few whole environments."""
    return RunConfig(
        environment=AtariConfig(game=find_game(game).name, num_envs=num_envs),
        agent=A2CConfig(network="small", learning_rate=learning_rate, rmsprop_epsilon_inside_root=False),
        noise_scale=NoiseScaleConfig(every_updates=1, groups=min(16, num_envs)),
        frames=frames,
        seed=seed,
    )


def train(config: RunConfig, folder: Path) -> str:
    """Run one game in this process, one thread; nothing if it is done already. Returns a line to show."""
    return f"{config.environment.name}: {run(config, folder, hardware=Hardware(device='cpu'))}"


def train_all(configs: Sequence[RunConfig], folder: Path, workers: int) -> Iterator[str]:
    """A line for each run as it ends; one worker is this process."""
    if workers == 1:
        yield from (train(config, folder) for config in configs)
        return
    spawn = multiprocessing.get_context("spawn")  # emulators and torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        yield from pool.map(train, configs, [folder] * len(configs))


def table(configs: Iterable[RunConfig], folder: Path) -> pd.DataFrame:
    """One row per run, with COLUMNS; B_simple is NaN and `high` infinite while unresolved.

    Raises:
        StoreError: none of the runs has rows.
    """
    runs = load_runs(folder, allow_empty=False)
    rows = []
    for config in configs:
        own = runs[runs["run_id"] == config.run_id]
        for noise in noise_over_training(own, bins=1).to_dict("records"):
            identity = [config.environment.name, config.batch_size, own["examples"].max(), own["updates"].max()]
            measured = [noise[f"noise_scale{end}"] for end in ("", "_low", "_high")] + [noise["design_effect"]]
            rows.append([*identity, *measured])
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def as_markdown(rows: pd.DataFrame) -> str:
    """A table; "> 85" where a noise scale is not resolved, which is what it exceeds."""
    lines = [
        "| game | batch, frames | frames | updates | B_simple, frames (95 % interval) | design effect |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows.itertuples(index=False):
        scale = Estimate(float(str(row.B_simple)), float(str(row.low)), float(str(row.high)))
        counts = f"{row.batch:,} | {row.frames:,} | {row.updates:,}"
        lines.append(f"| {row.game} | {counts} | {scale} | {row.design_effect:.1f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left, several games side by side, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--games", nargs="+", default=list(GAMES), help="default: the seven")
    parser.add_argument("--num-envs", type=int, default=64, help="environments, 5 steps of each per update (64)")
    parser.add_argument(
        "--frames", type=int, default=80_000, help="frames of every run, as the agent sees them (80000)"
    )
    parser.add_argument("--learning-rate", type=float, default=7e-4, help="RMSProp's (7e-4)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="games side by side; 0: one per core (default)")
    parser.add_argument("--out", type=Path, default=Path("runs/noise-at-start"), help="store of the runs")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of a Markdown table")
    args = parser.parse_args(arguments)
    try:
        configs = [run_config(game, args.num_envs, args.frames, args.learning_rate, args.seed) for game in args.games]
        for line in train_all(configs, args.out, args.workers or available_cpus()):
            print(line, file=sys.stderr, flush=True)
        rows = table(configs, args.out)
    except (ConfigError, StoreError) as error:
        print(error, file=sys.stderr)
        return 2
    print(rows.to_csv(index=False) if args.csv else as_markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
