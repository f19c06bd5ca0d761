"""Sweep Atari games, fit them and write one page: a recipe to change.

    python scripts/atari_sweep.py                                  # all seven games, minutes on two cores
    python scripts/atari_sweep.py --scale overnight --game Pong Breakout
    python scripts/atari_sweep.py --scale paper --algorithm ppo    # a GPU node, for days
    python scripts/atari_sweep.py --scale paper --dry-run          # what that would take on this machine

What a scale contains is in `rl_scaling/domains/rl/task.py`. Every game has a store of its own, runs/<game>-<algorithm>;
the same command resumes after a stop. Anything that `rl-scaling sweep atari --help` lists can be added to `command`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_scaling.cli import main as rl_scaling
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.registry import ALGORITHMS
from rl_scaling.domains.rl.task import SCALES
from rl_scaling.envs import find_games


def command(args: argparse.Namespace) -> list[str]:
    """The sweep that the arguments describe, as `rl-scaling` takes it."""
    words = ["sweep", "atari", "--game", *args.game, "--scale", args.scale, "--algorithm", args.algorithm]
    words += ["--device", args.device, "--workers", str(args.workers)]
    words += ["--stop-early"]  # changes no front
    return words + ["--dry-run"] * args.dry_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left, then fit and draw what is there; exit as `rl-scaling` does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", nargs="+", default=["all"])
    parser.add_argument("--scale", choices=[name for name in SCALES if name != "plain"], default="smoke")
    parser.add_argument("--algorithm", choices=[*ALGORITHMS], default="a2c")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--workers", type=int, default=0, help="trials side by side; 0: one per core (default)")
    parser.add_argument("--page", type=Path, default=Path("runs/atari.html"))
    parser.add_argument("--dry-run", action="store_true", help="say what it will take, and start nothing")
    args = parser.parse_args(arguments)
    try:
        games = find_games(args.game)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    code = rl_scaling(command(args))
    if args.dry_run or code == 2:
        return code
    stores = [f"runs/{game.folder}-{args.algorithm}" for game in games]
    return max(code, rl_scaling(["fit", *stores]), rl_scaling(["report", *stores, "--out", str(args.page)]))


if __name__ == "__main__":
    sys.exit(main())
