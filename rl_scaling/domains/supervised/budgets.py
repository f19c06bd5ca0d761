"""How long runs of different batch sizes train so that they can be compared (Smith, Elsen and De 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import updates_of_epochs


@dataclass(frozen=True)
class Budget:
    """The same number of epochs at every batch size, or the same number of steps.

    Attributes:
        amount: of the unit, above 0.
        unit: "epochs" cost the same examples at every batch size, "steps" the same updates.

    Raises:
        ConfigError: an amount that is not above 0, or steps that are no whole number.

    >>> Budget(20, "epochs").updates(examples=1200, batch_size=64), Budget(20, "epochs").words
    (375, '20 epochs')
    """

    amount: float
    unit: Literal["epochs", "steps"]

    def __post_init__(self) -> None:
        if not 0 < self.amount < float("inf") or (self.unit == "steps" and self.amount != int(self.amount)):
            raise ConfigError(f"a budget of {self.words} is none: give a number above 0, whole for steps")

    @property
    def words(self) -> str:
        """What a run's config calls it."""
        return f"{self.amount:.10g} {self.unit}"

    def updates(self, *, examples: int, batch_size: int) -> int:
        """Updates that a run of this batch size makes on so many training examples."""
        return int(self.amount) if self.unit == "steps" else updates_of_epochs(self.amount, examples, batch_size)


def doubled(budget: Budget, times: int) -> list[Budget]:
    """A budget and its doublings, as long as none of them is enough: what is best over all is "unlimited".

    >>> [budget.words for budget in doubled(Budget(5, "epochs"), 2)]
    ['5 epochs', '10 epochs', '20 epochs']
    """
    return [Budget(budget.amount * 2.0**power, budget.unit) for power in range(times + 1)]
