"""Scores of runs beside published ones: the best run of each batch size, and no curve that was not published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.analysis.made_runs import made_run
from tests.scripts.loading import load_script

SCRIPT = load_script("beside_published")


def runs_of(algorithm: str, ends: dict[tuple[int, float], float]) -> pd.DataFrame:
    """Runs of 10 rows and 100 updates each whose scores are the same all along."""
    rows = {"updates": np.arange(10.0, 101.0, 10.0), "episodes": np.full(10, 60.0)}
    named = {"task": f"Breakout {algorithm}", "problem": "Breakout", "algorithm": algorithm}
    made = [made_run(size, rate, 0, score=np.full(10, end), **rows, **named) for (size, rate), end in ends.items()]
    return pd.concat(made, ignore_index=True).assign(**{"environment.game": "Breakout", "agent.kind": algorithm})


def test_the_best_run_of_each_batch_size_as_far_as_it_got() -> None:
    runs = runs_of("a2c", {(20, 1e-3): 3.0, (20, 2e-3): 5.0, (80, 1e-3): 4.0})
    table = SCRIPT.curves(runs)
    rows = SCRIPT.as_markdown(table, [1_000, 2_000, 8_000]).splitlines()[2:]
    assert rows == [
        "| Breakout | a2c | 20 | 5.0 | 5.0 | - | 1.1 | 280 |",
        "| Breakout | a2c | 80 | 4.0 | 4.0 | 4.0 | 1.1 | 280 |",
    ]


def test_ppo_has_its_own_published_scores() -> None:
    table = SCRIPT.curves(runs_of("ppo", {(64, 1e-3): 2.0}))
    assert SCRIPT.as_markdown(table, [6_400]).splitlines()[-1] == "| Breakout | ppo | 64 | 2.0 | 1.1 | 398 |"


def test_what_is_published_is_one_point() -> None:
    table = SCRIPT.curves(runs_of("a2c", {(20, 1e-3): 3.0}))
    chart = SCRIPT.figure(table, "Breakout").chart.to_dict()
    assert [layer["mark"]["type"] for layer in chart["layer"]] == ["line", "point"]
    assert (table["frames"] < SCRIPT.PUBLISHED_FRAMES).all()


def test_runs_without_scores_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert SCRIPT.main([str(tmp_path)]) == 1
    assert "no recorded rows" in capsys.readouterr().err
