"""Progress of sweeps while they run, as a table or a line now and then; and stopping in good order."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from types import FrameType
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rl_scaling.cli.options import console, say
from rl_scaling.estimates import duration
from rl_scaling.estimates import number as readable
from rl_scaling.sweeps.sweep import Sweep
from rl_scaling.sweeps.tuner import Trial

LINE_SECONDS = 15.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruptible:
    """While open, a first Ctrl-C, SIGTERM or SIGHUP only sets `asked`; a second one acts as ever.

    Nothing is raised in the middle of a step, of a write, or of a message between processes.
    """

    asked = False

    def __enter__(self) -> Interruptible:
        self._before = [signal.signal(number, self._ask) for number in _SIGNALS]
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        say("saving what runs at its next update; Ctrl-C again ends at once")
        self._restore()

    def _restore(self) -> None:
        # Where Ctrl-C was ignored (nohup, a background job) the second one must still be able to end the program.
        for number, handler in zip(_SIGNALS, self._before, strict=True):
            again = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, again if handler == signal.SIG_IGN else handler)

    def __exit__(self, *_: object) -> None:
        self._restore()


class SweepDisplay:
    """Shows sweeps while open."""

    def __init__(self) -> None:
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._said = -math.inf
        self._begun: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, sweeps: Sequence[Sweep]) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, _left(sweeps))
        if self._live:
            self._live.update(self._panel(sweeps), refresh=True)
        elif now - self._said >= LINE_SECONDS:
            self._said = now
            say(self._summary(sweeps))
            for trial in _shown(sweeps):
                say(f"  {_label(trial, sweeps)}: {_progress(trial)}")

    def _summary(self, sweeps: Sequence[Sweep]) -> str:
        trials = [trial for sweep in sweeps for trial in sweep.trials.values()]
        running = [trial for sweep in sweeps for trial in sweep.running]
        over = sum(t.sealed for t in trials)
        waiting = sum(t.status in (None, "interrupted") and not t.failure for t in trials)
        text = f"{over} of {len(trials)} trials over, {len(running)} running, {waiting} waiting"
        if any(sweep.stopped_by for sweep in sweeps):
            return text + "; saving what runs (Ctrl-C again ends at once)"
        left = self._seconds_left(sweeps)
        if left is None:
            return text
        end = time.strftime("%H:%M", time.localtime(time.time() + left))
        return text + f"; about {duration(left)} left, until {end}"

    def _seconds_left(self, sweeps: Sequence[Sweep]) -> float | None:
        """By what was done since the display was opened; None while nothing was."""
        assert self._begun is not None
        begun, at_first = self._begun
        left = _left(sweeps)
        done = at_first - left
        return left * (time.monotonic() - begun) / done if done > 0 else None

    def _panel(self, sweeps: Sequence[Sweep]) -> Group:
        unit = sweeps[0].plan.tasks[0].example.identity.measure
        table = Table("trial", "progress", f"{unit.unit}/s", unit.words, "goals reached", box=None)
        for trial in _shown(sweeps):
            rate, value = trial.units_per_second, trial.tracker.smoothed
            table.add_row(
                Text(_label(trial, sweeps)),
                _progress(trial),
                "" if math.isnan(rate) else f"{rate:,.0f}",
                "" if math.isnan(value) else readable(value),
                f"{len(trial.tracker.reached)} of {len(trial.goals)}",
            )
        return Group(Text(self._summary(sweeps)), table)


_MOST_SHOWN = 12


def _shown(sweeps: Sequence[Sweep]) -> list[Trial]:
    return [trial for sweep in sweeps for trial in sweep.running][:_MOST_SHOWN]


def _left(sweeps: Sequence[Sweep]) -> int:
    return sum(trial.units_left for sweep in sweeps for trial in sweep.trials.values())


def _label(trial: Trial, sweeps: Sequence[Sweep]) -> str:
    several = len(sweeps) > 1 or len(sweeps[0].plan.tasks) > 1
    return f"{trial.identity.task}, {trial.label}" if several else trial.label


def _progress(trial: Trial) -> str:
    if trial.starting and not trial.units:
        return trial.starting
    return f"{trial.units:,} of {trial.length:,} {trial.identity.unit} ({trial.units / trial.length:.0%})"
