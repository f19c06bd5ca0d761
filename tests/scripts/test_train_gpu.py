"""The recipe for a GPU runs without one and writes what `train` writes."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from rl_scaling.agents.config import A2CConfig
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs.config import AtariConfig
from rl_scaling.store import list_runs, load_runs

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "train_gpu.py"
SMALL = ["--network", "small", "--num-envs", "4", "--frames", "200", "--record-every-frames", "100"]
ON_CPU = ["--device", "cpu", "--threads", "1", "--seconds", "0.1"]


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return int(ended.value.code or 0)


def test_trains_and_keeps_what_train_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("rl_scaling.agents.precision", "rl_scaling.domains.rl.precision"):
        monkeypatch.setattr(f"{place}.lacks_bfloat16", lambda _: "")
    assert run(monkeypatch, *SMALL, *ON_CPU, "--bf16", "--out", str(tmp_path)) == 0
    told = capsys.readouterr().out
    assert "bfloat16's gradient is" in told
    assert "of the emulators; score" in told
    config = RunConfig(
        environment=AtariConfig(game="Breakout", num_envs=4), agent=A2CConfig(network="small"), frames=200,
        record_every_frames=100,
    )  # fmt: skip
    (info,) = list_runs(tmp_path)
    assert (info.run_id, info.status) == (config.run_id, "done")
    assert info.provenance["alternate"] is True
    assert info.provenance["compute_dtype"] == "bfloat16"
    assert load_runs(tmp_path)["examples"].max() >= 200


def test_what_cannot_be_run_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rl_scaling.agents.precision.lacks_bfloat16", lambda _: "no such arithmetic")
    for options, complaint in (
        (["--bf16", "--algorithm", "ppo"], "no such arithmetic: leave --bf16 out"),
        (["--num-envs", "3"], "give an even number"),
        (["--game", "Chess"], "Chess"),
    ):
        assert run(monkeypatch, *SMALL, *ON_CPU, *options, "--out", str(tmp_path / "runs")) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert complaint in line
    assert list(tmp_path.iterdir()) == []
