"""Print how A2C of Stable-Baselines3 learns CartPole with few environments and with many, for the same frames.

    python scripts/why_more_environments.py                  # 100,000 frames, 5 seeds; a few minutes
    python scripts/why_more_environments.py --frames 20000 --seeds 1

Rows: few environments at the default learning rate and at higher ones; many at the same rates; many with rollouts so
short that the batch is nearly that of the few; many for as many updates as the few had.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env

from rl_scaling.estimates import Estimate
from rl_scaling.noise import NoiseScaleCallback

RATE, STEPS, FEW, MANY = 7e-4, 5, 8, 64


@dataclass(frozen=True)
class Row:
    """One setting: environments, steps of each per update, learning rate, and times the frames of the others."""

    num_envs: int
    steps: int
    learning_rate: float
    frames_times: int = 1


ROWS = [
    *(Row(FEW, STEPS, RATE * times) for times in (1, 4)),
    *(Row(MANY, STEPS, RATE * times) for times in (1, 2, 4, 8)),
    *(Row(MANY, 1, RATE * times) for times in (1, 4)),
    Row(MANY, STEPS, RATE, frames_times=MANY // FEW),
]


def train(row: Row, frames: int, seeds: int) -> tuple[list[float], NoiseScaleCallback]:
    """The mean score of each seed's last 100 games, and the noise scale over all of them."""
    noise_scale, scores = NoiseScaleCallback(every=4), []
    for seed in range(seeds):
        envs = make_vec_env("CartPole-v1", row.num_envs, seed=1000 * seed)  # neighbours share no environment's seed
        model = A2C("MlpPolicy", envs, n_steps=row.steps, learning_rate=row.learning_rate, seed=seed, device="cpu")
        model.learn(frames, callback=noise_scale)
        scores.append(float(np.mean([game["r"] for game in model.ep_info_buffer or []])))
    return scores, noise_scale


def main() -> int:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000, help="frames to learn from (default 100,000)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each setting (default 5)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| envs | steps | frames per update | learning rate | updates | score (lowest-highest) | B_simple, frames |")
    print("|---|---|---|---|---|---|---|")
    begun = time.monotonic()
    for row in ROWS:
        frames, batch = args.frames * row.frames_times, row.num_envs * row.steps
        scores, noise_scale = train(row, frames, args.seeds)
        found = noise_scale.estimate()
        b_simple = Estimate(found.b_simple, found.low, found.high)
        score = f"{np.mean(scores):.0f} ({min(scores):.0f}-{max(scores):.0f})"
        settings = f"{row.num_envs} | {row.steps} | {batch} | {row.learning_rate:.2g} | {-(-frames // batch):,}"
        print(f"| {settings} | {score} | {b_simple} |", flush=True)
    print(f"{args.seeds} seeds, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
