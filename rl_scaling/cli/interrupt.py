"""Ctrl-C and SIGTERM, once to stop in good order and twice to stop at once."""

from __future__ import annotations

import signal
from types import FrameType

from rl_scaling.cli.options import say

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptible:
    """While open, a first Ctrl-C or SIGTERM only sets `asked`; a second one acts as ever.

    Nothing is raised in the middle of a step, of a write, or of a message between processes.
    """

    asked = False

    def __enter__(self) -> Interruptible:
        self._before = [signal.signal(number, self._ask) for number in _SIGNALS]
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        say("saving what runs at its next record; Ctrl-C again ends at once")
        self._restore()

    def _restore(self) -> None:
        # Where Ctrl-C was ignored (nohup, a background job) the second one must still be able to end the program.
        for number, handler in zip(_SIGNALS, self._before, strict=True):
            signal.signal(number, signal.default_int_handler if handler == signal.SIG_IGN else handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
