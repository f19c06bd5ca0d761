"""What every sweep does, whatever its domain: it is run once, kept, read, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_scaling.store import list_runs, provenance
from rl_scaling.store.provenance import code_of
from tests.cli.commands import SWEEP, run


def test_a_sweep_is_run_once_then_read(pong_sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *SWEEP, "--out", pong_sweep, "--json")
    assert code == 0
    assert [row["status"] for row in json.loads(out)] == ["done", "done"]

    code, out, _ = run(capsys, "status", pong_sweep, "--json")
    rows = json.loads(out)
    assert code == 0
    assert {row["batch_size"] for row in rows} == {10, 20}
    assert all(row["status"] == "done" and row["frames"] >= 400 for row in rows)

    code, out, err = run(capsys, "fit", pong_sweep, "--json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["goal"] for row in rows] == [-21, -20]
    assert all(row["critical_batch"] is None for row in rows), "400 frames show nothing, and that must be said"
    keys = {"task", "goal", "steps_min", "examples_min", "critical_batch", "critical_batch_low", "critical_batch_high"}
    assert keys | {"status"} <= rows[0].keys()


def test_another_game_in_the_same_store_is_refused(pong_sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["breakout" if word == "pong" else word for word in SWEEP]
    code, out, err = run(capsys, *words, "--out", pong_sweep)
    assert (code, out) == (2, "")
    assert "holds runs of Pong: give another folder (--out)" in err
    assert len(err.splitlines()) == 1


def test_another_version_of_the_code_is_named_once(
    pong_sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "were made by" not in run(capsys, *SWEEP, "--out", pong_sweep)[2]
    (made,) = {code_of(info.provenance) for info in list_runs(pong_sweep)}
    monkeypatch.setattr(provenance, "_commit", lambda: "0123456789ab")
    (line,) = [line for line in run(capsys, *SWEEP, "--out", pong_sweep)[2].splitlines() if "were made by" in line]
    assert f"were made by rl-scaling {made};" in line
    assert "(0123456789ab)" in line
