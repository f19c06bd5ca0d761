"""`rl-scaling temperature`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import run


def test_temperature_writes_its_numbers_and_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["temperature", "--what", "both", "--pretrain-updates", 10, "--phase-updates", 60, "--json"]
    code, out, _ = run(capsys, *words, "--out", tmp_path / "t")
    assert code == 0
    (found,) = json.loads(out)["runs"]
    assert found["expected_ratio"] == pytest.approx(16)
    assert [(phase["phase"], phase["batch_size"]) for phase in found["phases"]] == [
        ("before", 64),
        ("during", 256),
        ("after", 64),
    ]
    assert json.loads((tmp_path / "t" / "temperature.json").read_text()) == json.loads(out)
    assert {path.name for path in (tmp_path / "t").iterdir()} == {
        f"temperature.{end}" for end in ("json", "pdf", "png", "svg")
    }


def test_temperature_is_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "temperature", "--pretrain-updates", 0, "--phase-updates", 8, "--what", "learning-rate")
    assert code == 0
    assert "1/T rose by 16" in out
