"""Stopping in good order, and what is shown of sweeps while they run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from rl_scaling.cli import live
from rl_scaling.cli.live import Interruptible, SweepDisplay
from rl_scaling.domains.nqm.domain import tuned_task
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import SweepPlan
from rl_scaling.sweeps.sweep import Sweep


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_first_signal_asks_and_raises_nothing(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with Interruptible() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
    assert signal.getsignal(number) == before
    assert "saving what runs at its next update; Ctrl-C again ends at once" in capsys.readouterr().err


def test_a_second_ctrl_c_ends_at_once_even_where_it_was_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruptible() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    task = tuned_task("sgd", power=0.0, batch_sizes=(16, 256), targets=(0.1,), rates=1)
    begun = Sweep(SweepPlan(tasks=(task,)), Store(tmp_path))
    begun.begin()
    return begun


def set_clock(monkeypatch: pytest.MonkeyPatch, times: Sequence[float]) -> None:
    clock = SimpleNamespace(**{**vars(time), "monotonic": partial(next, iter(times))})
    monkeypatch.setattr(live, "time", clock)


def test_a_line_says_how_far_it_is_and_when_it_ends(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_clock(monkeypatch, [0.0, 100.0, 100.0])
    with SweepDisplay() as display:
        display.show([sweep])
        assert capsys.readouterr().err.strip() == "0 of 2 trials over, 0 running, 2 waiting"
        next(iter(sweep.trials.values())).status = "done"
        display.show([sweep])
    said = capsys.readouterr().err
    assert "1 of 2 trials over, 0 running, 1 waiting; about " in said
    assert " left, until " in said


def test_lines_come_now_and_then(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [0.0, 1.0, live.LINE_SECONDS - 0.1, live.LINE_SECONDS]
    set_clock(monkeypatch, times)
    display = SweepDisplay()
    for _ in times:
        display.show([sweep])
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_what_stops_says_so_in_place_of_an_end(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.stopped_by = "request"
    SweepDisplay().show([sweep])
    assert "saving what runs (Ctrl-C again ends at once)" in capsys.readouterr().err
