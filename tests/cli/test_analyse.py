"""`status` and `fit` on a tiny sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_scaling.config import SCHEMA_VERSION
from tests.cli.commands import run


def test_tables_are_for_people(pong_sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 done" in run(capsys, "status", pong_sweep)[1]
    assert "Pong a2c network=small" in run(capsys, "fit", pong_sweep)[1]


def test_a_newer_schema_is_named(pong_sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads((pong_sweep / "sweep.json").read_text())
    plan["schema"] = SCHEMA_VERSION + 1
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    code, _, err = run(capsys, "status", tmp_path)
    assert code == 1
    assert f"schema {SCHEMA_VERSION + 1}" in err
    assert "upgrade rl-scaling" in err
