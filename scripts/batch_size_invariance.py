"""Do the learning curves of PPO's families coincide over batch sizes, at equal frames? A test of theory and code.

    python scripts/batch_size_invariance.py --game minatar/breakout             # hours; resumes where it was
    python scripts/batch_size_invariance.py --game minatar/breakout --frames 100000 --seeds 0 1 --num-envs 4 8 16
    python scripts/batch_size_invariance.py --read runs/minatar-ppo-ewma   # train nothing: of sweeps, rates by rule

PPO-EWMA with the rule of Hilton et al. 2021 should learn the same from the same frames with every batch below the
critical one; a fixed count of minibatches, or a fixed minibatch, need not. Each family is a sweep with one learning
rate for each number of environments, by the family's rule from the rate that it is given at 8 of them, and no rate is
tuned: what is tested is the rule. All are in one store; any option of `rl-scaling sweep rl` can be added behind --.

A curve is the mean score of the games that ended in each tenth of the frames. "apart" is how far the mean curves of the
batch sizes are from their common mean (root mean square over batch sizes and tenths, beside that mean), "by seeds" what
seeds alone would make of it, and p the share of ways to deal the runs to the batch sizes that set them at least as far
apart: small where the batch size matters, anything from 0 to 1 where it does not.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.cli import main as rl_scaling
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import run_config_from_dict
from rl_scaling.domains.rl.task import learning_rates_of
from rl_scaling.envs import find_game
from rl_scaling.store import RunInfo, StoreError, list_runs, load_runs

FAMILIES = ("count", "minibatch", "ewma")
PARTS = 10
DEALS = 9_999


def commands(args: argparse.Namespace, more: Sequence[str]) -> list[list[str]]:
    """The sweep of each family, as `rl-scaling` takes it."""
    shared = ["sweep", "rl", "--algorithm", "ppo", "--game", args.game, "--num-envs", *map(str, args.num_envs)]
    shared += ["--frames", str(args.frames), "--seeds", *map(str, args.seeds), "--rates", "1", "--extensions", "0"]
    shared += ["--workers", str(args.workers), "--out", str(args.out)]
    shared += ["--reference-rate", str(args.reference_rate)] if args.reference_rate else []
    return [[*shared, "--scaling", family, *more] for family in args.families]


def by_rule(infos: Sequence[RunInfo], reference_rate: float | None) -> list[str]:
    """Ids of the runs whose learning rate is what the rule of their family makes of the rate at 8 environments."""
    kept = []
    for info in infos:
        config = run_config_from_dict(info.config)
        rate = learning_rates_of(config.agent, reference_rate=reference_rate).centre(config.batch_size)
        if math.isclose(config.learning_rate, rate, rel_tol=0.01):  # grids have three digits
            kept.append(info.run_id)
    return kept


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """The mean score of the games that ended in each part of the frames, one row per run that has come to the end.

    Args:
        runs: in the form of `rl_scaling.store.load_runs`.

    Returns:
        Columns task, batch_size, learning_rate, seed and 0 to PARTS - 1; NaN where no game ended.
    """
    rows = runs[(runs["status"] == "done") & (runs["episodes"] > 0)].copy()
    planned = rows["config.frames"] if "config.frames" in rows else rows.groupby("run_id")["examples"].transform("max")
    rows["part"] = np.minimum((rows["examples"] - 1) * PARTS // planned, PARTS - 1).astype(int)
    rows["total"] = rows["score"] * rows["episodes"]
    by = ["task", "batch_size", "learning_rate", "seed", "run_id"]
    sums = rows.groupby([*by, "part"])[["total", "episodes"]].sum()
    means = (sums["total"] / sums["episodes"]).rename("score").reset_index()
    table = means.pivot_table(values="score", index=by, columns="part").reindex(columns=range(PARTS))
    return table.reset_index().drop(columns="run_id")


def apart(scores: NDArray[np.float64], sizes: NDArray[np.float64]) -> tuple[float, float, float]:
    """How far the mean curves of the batch sizes are apart, what seeds alone would make, both beside the mean, and p.

    Args:
        scores: (runs, parts).
        sizes: (runs,) the batch size of each, two or more.
    """
    kinds, which = np.unique(sizes, return_inverse=True)
    membership = np.eye(len(kinds))[which]  # (runs, sizes)
    counts = membership.sum(0)
    centred = scores - scores.mean(0)

    def between(dealt: NDArray[np.float64]) -> float:
        means = dealt.T @ centred / counts[:, None]
        return float((counts @ means**2).sum() / len(centred) / centred.shape[1])

    found = between(membership)
    within = float(((centred - (membership @ (membership.T @ centred / counts[:, None]))) ** 2).mean())
    degrees = len(centred) - len(kinds)
    by_seeds = within * (len(kinds) - 1) / degrees if degrees else np.nan
    random = np.random.default_rng(0)
    dealt = [between(membership[random.permutation(len(centred))]) for _ in range(DEALS)]
    share = (1 + sum(other >= found * (1 - 1e-9) for other in dealt)) / (1 + DEALS)
    level = abs(float(scores.mean()))
    return float(np.sqrt(found)) / level, float(np.sqrt(by_seeds)) / level, share


def as_markdown(table: pd.DataFrame) -> str:
    """The curves of every family, mean over seeds, and below each how far apart they are."""
    shown = [part for part in range(PARTS) if part % 2]
    heads = ["task", "batch", "rate", "seeds", *(f"to {(part + 1) * 100 // PARTS} %" for part in shown)]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    verdicts = []
    for task, family in table.groupby("task"):
        for (size, rate), cell in family.groupby(["batch_size", "learning_rate"]):
            means = " | ".join(f"{cell[part].mean():.2f}" for part in shown)
            lines.append(f"| {task} | {float(str(size)):,.0f} | {float(str(rate)):.3g} | {len(cell)} | {means} |")
        known = [part for part in range(PARTS) if family[part].notna().all()]
        if family["batch_size"].nunique() < 2 or not known:
            verdicts.append(f"{task}: fewer than two batch sizes are done")
            continue
        found, by_seeds, share = apart(family[known].to_numpy(np.float64), family["batch_size"].to_numpy(np.float64))
        verdicts.append(f"{task}: apart {found:.1%}, by seeds {by_seeds:.1%}, p = {share:.3f}")
    return "\n".join([*lines, "", *verdicts])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left of every family, then compare what is there; exit as `rl-scaling` does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", help="game to train on")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--num-envs", nargs="+", type=int, default=[2, 4, 8, 16, 32])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--reference-rate", type=float, help="rate at 8 environments; by default the algorithm's")
    parser.add_argument("--workers", type=int, default=0, help="trials side by side; 0: one per core (default)")
    parser.add_argument("--out", type=Path, help="store (default runs/invariance/<game>)")
    parser.add_argument("--read", nargs="+", type=Path, metavar="DIR", help="train nothing: compare the runs in here")
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    args = parser.parse_args(own)
    code = 0
    try:
        if not args.read:
            name = find_game(args.game or "").name.lower().replace("/", "-")
            args.out = args.out or Path("runs") / "invariance" / name
            for command in commands(args, more):
                code = max(code, rl_scaling(command))
                if code == 2:
                    return code
        stores = args.read or [args.out]
        runs = load_runs(*stores, allow_empty=False)
        print(as_markdown(curves(runs[runs["run_id"].isin(by_rule(list_runs(*stores), args.reference_rate))])))
    except (ConfigError, StoreError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
