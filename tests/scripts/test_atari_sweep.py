"""The recipe runs the sweep of a scale, then fits and draws every game's store."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rl_scaling.cli.sweep_atari import SweepAtari

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "atari_sweep.py"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    """The script as a module, and what it would have run."""
    spec = importlib.util.spec_from_file_location("atari_sweep", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ran: list[Any] = []
    monkeypatch.setattr(SweepAtari, "run", lambda self: ran.append(self) or 0)
    monkeypatch.setattr(module, "rl_scaling", lambda words: ran.append(words) or 0)
    return module, ran


def test_sweeps_then_fits_and_draws_all_stores(recipe: tuple[Any, list[Any]]) -> None:
    module, ran = recipe
    words = ["--game", "pong", "breakout", "--scale", "overnight", "--algorithm", "ppo", "--page", "page.html"]
    assert module.main(words) == 0
    sweep, fit, report = ran
    assert (sweep.game, sweep.scale, sweep.algorithm) == (("pong", "breakout"), "overnight", "ppo")
    stores = ["runs/pong-ppo", "runs/breakout-ppo"]
    assert fit == ["fit", *stores]
    assert report == ["report", *stores, "--out", "page.html"]


def test_a_dry_run_reads_no_store(recipe: tuple[Any, list[Any]]) -> None:
    module, ran = recipe
    assert module.main(["--dry-run"]) == 0
    (sweep,) = ran
    assert (sweep.game, sweep.scale, sweep.dry_run) == (("all",), "smoke", True)


def test_bad_input_is_one_line(recipe: tuple[Any, list[Any]], capsys: pytest.CaptureFixture[str]) -> None:
    module, ran = recipe
    assert module.main(["--game", "pnog"]) == 2
    assert capsys.readouterr().err == "no game 'pnog'; nearest: Pong\n"
    assert ran == []
