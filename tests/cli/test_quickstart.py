"""The tour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rl_scaling.cli.quickstart import Quickstart
from tests.cli.commands import run

QUICK = ("quickstart", "--frames", 300, "--minatar-frames", 300, "--digits-epochs", 1)


@pytest.fixture(autouse=True)
def few_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rl_scaling.cli.quickstart.GAME_BATCH_SIZES", (10, 20))  # emulators take a while to start
    monkeypatch.setattr("rl_scaling.cli.quickstart.MINATAR_BATCH_SIZES", (10, 20))


def test_quickstart_makes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minatar")
    code, _, err = run(capsys, *QUICK, "--out", tmp_path)
    assert code == 0
    page = (tmp_path / "report.html").read_text()
    headings = re.findall("<h2>([^<$]*)</h2>", page)  # the charts' own program has templates of some
    assert headings[0] == "Reinforcement learning: MinAtar", "what it is about comes first"
    assert headings[1] == "Reinforcement learning: Atari"
    assert set(headings[2:4]) == {"Noisy quadratic model", "Supervised learning"}
    assert headings[-1] == "Breakout, a longer sweep", "the shipped results are part of the tour"
    assert str(tmp_path / "report.html") in err.replace("\n", "")


def test_without_minatar_one_line_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rl_scaling.envs.make.find_spec", lambda name: None)
    assert list(Quickstart(out=tmp_path)._games()) == [tmp_path / "breakout-a2c"]
    assert "pip install 'rl-scaling[minatar]'" in capsys.readouterr().err.replace("\n", " ")
