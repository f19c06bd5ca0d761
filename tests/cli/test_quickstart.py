"""The tour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import run


def test_quickstart_makes_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rl_scaling.cli.quickstart.GAME_BATCH_SIZES", (10, 20))  # emulators take a while to start
    code, _, err = run(capsys, "quickstart", "--frames", 300, "--digits-epochs", 1, "--out", tmp_path)
    assert code == 0
    page = (tmp_path / "report.html").read_text()
    for domain in ("Noisy quadratic model", "Supervised learning", "Reinforcement learning"):
        assert f"<h2>{domain}</h2>" in page
    assert "<h2>Breakout, a longer sweep</h2>" in page, "the shipped results are part of the tour"
    assert str(tmp_path / "report.html") in err.replace("\n", "")
