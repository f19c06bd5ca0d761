"""The recipe of the noise scale at the start of training runs, goes on, and refuses games that there are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rl_scaling.store import list_runs

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "noise_at_start.py"


def call(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)


def test_measures_prints_and_runs_nothing_twice(tmp_path: Path) -> None:
    options = ("--games", "pong", "--num-envs", "2", "--frames", "60", "--out", str(tmp_path))
    first = call(*options)
    assert first.returncode == 0, first.stderr
    row = first.stdout.splitlines()[2]
    assert row.startswith("| Pong | 10 | 6")
    (info,) = list_runs(tmp_path)
    assert (info.status, info.config["noise_scale"]["every_updates"]) == ("done", 1)
    stamp = (info.directory / "records.parquet").stat().st_mtime_ns
    again = call(*options, "--csv")
    header, numbers = again.stdout.split()[:2]
    assert header == "game,batch,frames,updates,B_simple,low,high,design_effect"
    assert numbers.startswith("Pong,10,6")
    assert (info.directory / "records.parquet").stat().st_mtime_ns == stamp


def test_refuses_a_game_that_there_is_not(tmp_path: Path) -> None:
    refused = call("--games", "Pnog", "--out", str(tmp_path / "runs"))
    assert refused.returncode == 2
    assert refused.stderr.strip() == "no game 'Pnog'; nearest: Pong"
    assert not (tmp_path / "runs").exists()
