"""The recipe runs the sweep of a scale, then fits and draws every game's store."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scripts.loading import load_script


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[list[str]]]:
    """The script as a module, and the commands that it would have run."""
    module = load_script("atari_sweep")
    ran: list[list[str]] = []
    monkeypatch.setattr(module, "rl_scaling", lambda words: ran.append(words) or 0)
    return module, ran


def test_sweeps_then_fits_and_draws_all_stores(recipe: tuple[Any, list[list[str]]]) -> None:
    module, ran = recipe
    words = ["--game", "pong", "breakout", "--scale", "overnight", "--algorithm", "ppo", "--page", "page.html"]
    assert module.main(words) == 0
    sweep, fit, report = ran
    asked = ["--game", "pong", "breakout", "--scale", "overnight", "--algorithm", "ppo"]
    assert sweep[: 2 + len(asked)] == ["sweep", "atari", *asked]
    stores = ["runs/pong-ppo", "runs/breakout-ppo"]
    assert fit == ["fit", *stores]
    assert report == ["report", *stores, "--out", "page.html"]


def test_a_dry_run_reads_no_store(recipe: tuple[Any, list[list[str]]]) -> None:
    module, ran = recipe
    assert module.main(["--dry-run"]) == 0
    (sweep,) = ran
    assert sweep[:6] == ["sweep", "atari", "--game", "all", "--scale", "smoke"]
    assert "--dry-run" in sweep


def test_bad_input_is_one_line(recipe: tuple[Any, list[list[str]]], capsys: pytest.CaptureFixture[str]) -> None:
    module, ran = recipe
    assert module.main(["--game", "pnog"]) == 2
    assert capsys.readouterr().err == "no game 'pnog'; nearest: Pong\n"
    assert ran == []
