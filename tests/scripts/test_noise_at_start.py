"""The recipe of the noise scale at the start of training runs, resumes, and refuses games that there are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl_scaling.store import list_runs
from tests.scripts.loading import load_script

SCRIPT = load_script("noise_at_start")


def test_measures_prints_and_runs_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--games", "pong", "--num-envs", "2", "--frames", "60", "--workers", "1", "--out", str(tmp_path)]
    assert SCRIPT.main(options) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith("| Pong | 10 | 6")
    (info,) = list_runs(tmp_path)
    assert (info.status, info.config["noise_scale"]["every_updates"]) == ("done", 1)
    stamp = (info.directory / "records.parquet").stat().st_mtime_ns
    assert SCRIPT.main([*options, "--csv"]) == 0
    header, numbers = capsys.readouterr().out.split()[:2]
    assert header == "game,batch,frames,updates,B_simple,low,high,design_effect"
    assert numbers.startswith("Pong,10,6")
    assert (info.directory / "records.parquet").stat().st_mtime_ns == stamp


def test_refuses_a_game_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert SCRIPT.main(["--games", "Pnog", "--out", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.strip() == "no game 'Pnog'; nearest: Pong"
    assert not (tmp_path / "runs").exists()
