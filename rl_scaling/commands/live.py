"""Live progress of a sweep: a table that redraws itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rl_scaling.commands.options import console, say
from rl_scaling.sweeps.sweep import Sweep, Trial

LINE_SECONDS = 15.0


class SweepDisplay:
    """Shows a sweep while open."""

    def __init__(self) -> None:
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._said = -math.inf

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, sweep: Sweep) -> None:
        now = time.monotonic()
        if self._live:
            self._live.update(_panel(sweep), refresh=True)
        elif now - self._said >= LINE_SECONDS:
            self._said = now
            say(_summary(sweep))
            for trial in sweep.running:
                say(f"  {trial.label}: {_progress(trial)}")


def _summary(sweep: Sweep) -> str:
    trials = sweep.trials.values()
    over = sum(t.sealed for t in trials)
    waiting = sum(t.status in (None, "interrupted") for t in trials)
    text = f"{over} of {len(sweep.trials)} trials over, {len(sweep.running)} running, {waiting} waiting"
    if sweep.interrupted:
        return text + "; saving what runs (Ctrl-C again ends at once)"
    seconds = sweep.seconds_left
    return text + (f"; about {_duration(seconds)} left" if math.isfinite(seconds) else "")


def _panel(sweep: Sweep) -> Group:
    table = Table("trial", "progress", "frames/s", "score", "goals reached", box=None)
    for trial in sweep.running:
        score = trial.goals.smoothed
        table.add_row(
            trial.label,
            _progress(trial),
            "" if math.isnan(trial.frames_per_second) else f"{trial.frames_per_second:,.0f}",
            "" if math.isnan(score) else f"{score:,.1f}",
            f"{len(trial.goals.reached)} of {len(sweep.plan.goals)}",
        )
    return Group(Text(_summary(sweep)), table)


def _progress(trial: Trial) -> str:
    if trial.starting and not trial.frames:
        return trial.starting
    share = trial.frames / trial.config.frames
    return f"{trial.frames:,} of {trial.config.frames:,} frames ({share:.0%})"


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
