"""Live progress of a sweep: a table that redraws itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rl_scaling.cli.options import console, duration, say
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

    def show(self, sweeps: Sequence[Sweep]) -> None:
        now = time.monotonic()
        if self._live:
            self._live.update(_panel(sweeps), refresh=True)
        elif now - self._said >= LINE_SECONDS:
            self._said = now
            say(_summary(sweeps))
            for sweep in sweeps:
                for trial in sweep.running:
                    say(f"  {_label(trial, sweeps)}: {_progress(trial)}")


def _label(trial: Trial, sweeps: Sequence[Sweep]) -> str:
    return f"{trial.config.environment.name}, {trial.label}" if len(sweeps) > 1 else trial.label


def _summary(sweeps: Sequence[Sweep]) -> str:
    trials = [trial for sweep in sweeps for trial in sweep.trials.values()]
    running = [trial for sweep in sweeps for trial in sweep.running]
    over = sum(t.sealed for t in trials)
    waiting = sum(t.status in (None, "interrupted") for t in trials)
    text = f"{over} of {len(trials)} trials over, {len(running)} running, {waiting} waiting"
    if any(sweep.interrupted for sweep in sweeps):
        return text + "; saving what runs (Ctrl-C again ends at once)"
    rate = sum(t.frames_per_second for t in running if math.isfinite(t.frames_per_second))
    left = sum(t.frames_left for t in trials)
    return text + (f"; about {duration(left / rate)} left" if rate else "")


def _panel(sweeps: Sequence[Sweep]) -> Group:
    table = Table("trial", "progress", "frames/s", "score", "goals reached", box=None)
    for sweep in sweeps:
        for trial in sweep.running:
            score = trial.goals.smoothed
            table.add_row(
                _label(trial, sweeps),
                _progress(trial),
                "" if math.isnan(trial.frames_per_second) else f"{trial.frames_per_second:,.0f}",
                "" if math.isnan(score) else f"{score:,.1f}",
                f"{len(trial.goals.reached)} of {len(sweep.plan.goals)}",
            )
    return Group(Text(_summary(sweeps)), table)


def _progress(trial: Trial) -> str:
    if trial.starting and not trial.frames:
        return trial.starting
    share = trial.frames / trial.config.frames
    return f"{trial.frames:,} of {trial.config.frames:,} frames ({share:.0%})"
