"""What a task counts and what its goals are about, in words."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from rl_scaling.analysis.fronts import measure_of
from rl_scaling.estimates import Estimate
from rl_scaling.records import Direction, Measure

_COUNTED_AS = {"frames": "agent steps"}


@dataclass(frozen=True)
class Words:
    """The words for one task."""

    measure: Measure

    @property
    def unit(self) -> str:
        """What batches and totals are counted in: frames or examples."""
        return self.measure.unit

    @property
    def counted(self) -> str:
        """The unit with what it is, for an axis of totals."""
        return f"{self.unit} ({_COUNTED_AS[self.unit]})" if self.unit in _COUNTED_AS else self.unit

    @property
    def batch_steps(self) -> str:
        """What a batch size that changes is a multiple of."""
        return "in steps of whole groups of environments" if self.unit == "frames" else f"in whole {self.unit}"

    @property
    def larger_batches(self) -> str:
        """What larger batches come from."""
        return "more environments" if self.unit == "frames" else "larger batches"

    @property
    def log_scale(self) -> str:
        """What the unit is, and that an axis is logarithmic."""
        return ", ".join([*filter(None, [_COUNTED_AS.get(self.unit)]), "log scale"])

    @property
    def quantity(self) -> str:
        """What is compared with goals: score, loss, validation loss."""
        return self.measure.words

    @property
    def goal(self) -> str:
        """A goal with its quantity."""
        return f"goal ({self.quantity})"

    @property
    def curve(self) -> str:
        """What learning curves show."""
        return f"smoothed {self.quantity}" if self.measure.over_episodes else self.quantity

    @property
    def direction(self) -> Direction:
        """Where goals are reached from."""
        return self.measure.direction


def percent(fits: pd.DataFrame) -> str:
    """The confidence of the intervals in `SweepFit.fits`, with a space that does not break."""
    return f"{100 * fits['confidence'].iloc[0]:g}\N{NO-BREAK SPACE}%"


def bounded(estimate: Estimate, digits: int = 3) -> str:
    """An estimate for a sentence or a table of the page."""
    return estimate.text(digits, above="at least ", below="at most ")


def words_of(table: pd.DataFrame) -> Words:
    """The words for rows of one task that have the columns unit and quantity.

    >>> words_of(pd.DataFrame({"unit": ["frames"], "quantity": ["score"]})).counted
    'frames (agent steps)'
    """
    return Words(measure_of(table))
