"""Print what random play scores: the `random_score` of every game in envs/games.py.

    python scripts/random_scores.py                        # the seven games, 128 games of each; a few minutes
    python scripts/random_scores.py --games Freeway Enduro --num-envs 8 --games-each 4
    python scripts/random_scores.py --games minatar/all --num-envs 10 --games-each 100

Every environment plays the same number of whole games, so that short games are not counted more often than long ones.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

import numpy as np

from rl_scaling.config import ConfigError
from rl_scaling.envs import Game, find_games, make_vector


def random_play(game: Game, num_envs: int, games_each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(num_envs * games_each,) raw scores and lengths in agent steps of uniformly random play."""
    random = np.random.default_rng(seed)
    scores: list[float] = []
    lengths: list[int] = []
    played = np.zeros(num_envs, int)
    with contextlib.closing(make_vector(game.environment(num_envs=num_envs, max_start_steps=0))) as source:
        source.reset(seed)
        while played.min() < games_each:
            step = source.step(random.integers(source.num_actions, size=num_envs))
            for env, score, length in zip(step.finished, step.episode_scores, step.episode_frames, strict=True):
                if played[env] < games_each:
                    scores.append(score)
                    lengths.append(length)
                played[env] += 1
    return np.array(scores), np.array(lengths)


def main() -> int:
    """Print one row per game."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--games", nargs="+", default=["all"], help="default: the seven of Atari")
    parser.add_argument("--num-envs", type=int, default=16, help="environments side by side (default 16)")
    parser.add_argument("--games-each", type=int, default=8, help="whole games in each of them (default 8)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        games = find_games(args.games)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{'game':<24}{'games':>6}{'score':>10}{'std error':>11}{'std dev':>9}{'steps/game':>12}{'seconds':>9}")
    for game in games:
        begun = time.monotonic()
        scores, lengths = random_play(game, args.num_envs, args.games_each, args.seed)
        spread = scores.std(ddof=1) if len(scores) > 1 else float("nan")
        error = spread / np.sqrt(len(scores))
        seconds = time.monotonic() - begun
        row = f"{len(scores):>6}{scores.mean():>10.2f}{error:>11.2f}{spread:>9.2f}{lengths.mean():>12.0f}"
        print(f"{game.name:<24}{row}{seconds:>9.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
