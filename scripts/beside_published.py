"""Scores of runs at a few numbers of frames, beside random play and the published scores after ten million.

    python scripts/beside_published.py results/breakout-a2c
    python scripts/beside_published.py results/breakout-a2c --out docs/pictures      # and the chart

Published: Stable-Baselines3's zoo, Nature network, 10 M agent steps (Alien: the PPO paper's A2C). They are end points;
no curve comes with them, so that nothing is said about their scores at the frames of shorter runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from rl_scaling.analysis.fronts import split_runs
from rl_scaling.envs import GAMES, find_game
from rl_scaling.report.figures import Figure, Tables
from rl_scaling.report.page import export_figure
from rl_scaling.report.theme import log_axis, ordered_colour
from rl_scaling.store import StoreError, load_runs

PUBLISHED_FRAMES = 10_000_000
PUBLISHED_PPO = {
    "BeamRider": 3_397,
    "Breakout": 398,
    "Pong": 21.0,
    "Qbert": 15_627,
    "Seaquest": 1_784,
    "SpaceInvaders": 960,
}


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """The run with the best smoothed score at its end for each game, algorithm and batch size.

    Returns:
        game, algorithm, batch_size, frames, score: one row for every row of the run that has a score.
    """
    found: dict[tuple[str, Any, float], pd.DataFrame] = {}
    for run in split_runs(runs):
        known = np.isfinite(run.curve.score)
        asked = runs.iloc[run.rows[0]]
        game, algorithm = asked.get("environment.game"), asked.get("agent.kind")
        if run.adaptive or not known.any() or not isinstance(game, str):
            continue
        curve = pd.DataFrame({"frames": run.examples[known], "score": run.curve.score[known]})
        curve = curve.assign(game=game, algorithm=algorithm, batch_size=run.batch_size)
        best = found.get((game, algorithm, run.batch_size))
        if best is None or curve["score"].iloc[-1] > best["score"].iloc[-1]:
            found[game, algorithm, run.batch_size] = curve
    return pd.concat([found[key] for key in sorted(found)], ignore_index=True) if found else pd.DataFrame()


def published(game: str, algorithm: str) -> float:
    """Score after PUBLISHED_FRAMES; NaN where there is none."""
    return PUBLISHED_PPO.get(game, np.nan) if algorithm == "ppo" else find_game(game).published_a2c_score


def as_markdown(table: pd.DataFrame, marks: Sequence[int]) -> str:
    """One line per game, algorithm and batch size: the score at each of `marks` frames, as far as the run got."""
    heads = ["game", "algorithm", "batch", *(f"{mark:,} frames" for mark in marks), "random", "published, 10 M"]
    lines = ["| " + " | ".join(heads) + " |", "| --- | --- |" + " ---: |" * (len(heads) - 2)]
    for (game, algorithm, size), curve in table.groupby(["game", "algorithm", "batch_size"]):
        so_far = [curve[curve["frames"] <= mark]["score"] for mark in marks]
        reached = [mark <= 1.02 * curve["frames"].max() for mark in marks]
        scores = [f"{s.iloc[-1]:.1f}" if ok and len(s) else "-" for s, ok in zip(so_far, reached, strict=True)]
        ends = [f"{GAMES[str(game)].random_score:.1f}", f"{published(str(game), str(algorithm)):,.0f}"]
        lines.append(f"| {game} | {algorithm} | {float(str(size)):,.0f} | {' | '.join([*scores, *ends])} |")
    return "\n".join(lines)


def figure(table: pd.DataFrame, game: str) -> Figure:
    """Scores over frames of one game, each batch size with its best run, and what was published, far to the right."""
    tables, own = Tables(), table[table["game"] == game]
    algorithms = sorted(own["algorithm"].unique())
    ends = pd.DataFrame({"frames": PUBLISHED_FRAMES, "score": [published(game, a) for a in algorithms]}).dropna()
    every = pd.concat([own, ends])
    x = log_axis(alt.X, "frames", "frames", every["frames"])
    y = log_axis(alt.Y, "score", "smoothed score", every["score"], format="~g")
    colour = ordered_colour("batch_size", sorted(own["batch_size"].unique().tolist()), "batch size (frames)")
    line = alt.Chart(tables.add(own, ["frames", "score", "batch_size", "algorithm"])).mark_line(clip=True)
    point = alt.Chart(tables.add(ends, ["frames", "score"])).mark_point(shape="diamond", size=120, filled=True)
    layers = [line.encode(x=x, y=y, color=colour, detail="algorithm:N"), point.encode(x=x, y=y)]
    caption = "Lines: the best run of each batch size. Diamond: the published score after ten million agent steps."
    return Figure(
        f"beside-published-{game.lower()}", f"{game} beside what is published", caption, alt.layer(*layers), tables
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; draw a chart of each game where every score is positive, as its axis is logarithmic."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="stores of runs")
    parser.add_argument("--frames", nargs="+", type=int, default=[100_000, 200_000, 440_000])
    parser.add_argument("--out", type=Path, help="folder for the charts")
    args = parser.parse_args(arguments)
    try:
        table = curves(load_runs(*args.folders, allow_empty=False))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    table = table[table["game"].isin(list(GAMES))] if len(table) else table
    if table.empty:
        print("no scores of any of the seven games in these runs", file=sys.stderr)
        return 1
    print(as_markdown(table, args.frames))
    if args.out:
        for game, own in table.groupby("game"):
            if (own["score"] > 0).all():
                print(*export_figure(figure(table, str(game)), args.out / f"beside-published-{str(game).lower()}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
