"""Quasi-random search beside the grid: points of a Sobol sequence in a box, and whether the best lies at its walls.

Zhang et al. 2019, section 4: learning rate, schedule and the optimiser's own coefficients are tuned together with a
fixed budget of trials that do not diverge, and the best of them should lie away from the bounds of the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rl_scaling.config import ConfigError

_SEED = 0


@dataclass(frozen=True)
class Dimension:
    """A positive number that is searched on a logarithmic scale.

    Attributes:
        name: what it is called in messages.
        low, high: its bounds.

    Raises:
        ConfigError: bounds that are not positive, or not in order.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ConfigError(f"{self.name} from {self.low:g} to {self.high:g}: give positive bounds in order")

    def at(self, share: float) -> float:
        """The value at a share of the way from the lower bound to the upper one, to four digits."""
        return float(f"{self.low * (self.high / self.low) ** share:.4g}")

    def remark(self, value: float, near: float = 0.1) -> str:
        """Which bound to move where a best value lies within a share `near` of it; "" where it does not.

        >>> Dimension("learning rate", 0.01, 1.0).remark(0.9)
        'learning rate 0.9 is near its upper bound 1: raise it'
        """
        share = math.log(value / self.low) / math.log(self.high / self.low)
        if share >= 1 - near:
            return f"{self.name} {value:g} is near its upper bound {self.high:g}: raise it"
        return f"{self.name} {value:g} is near its lower bound {self.low:g}: lower it" if share <= near else ""


def sobol_points(space: Sequence[Dimension], first: int, count: int) -> list[dict[str, float]]:
    """Points `first` to `first + count` of one scrambled Sobol sequence, by the dimensions' names.

    More points of the same sequence can be asked for later; those before stay as they are.

    >>> space = [Dimension("rate", 0.1, 10.0)]
    >>> sobol_points(space, 0, 4)[2:] == sobol_points(space, 2, 2)
    True
    """
    # Whole powers of two, which the sequence is balanced for; a longer one begins with a shorter one.
    from scipy.stats import qmc

    shares = qmc.Sobol(len(space), rng=_SEED).random_base2(max(1, math.ceil(math.log2(first + count))))
    chosen = shares[first : first + count].tolist()
    return [{d.name: d.at(share) for d, share in zip(space, point, strict=True)} for point in chosen]


def remarks(space: Sequence[Dimension], best: Mapping[str, float]) -> list[str]:
    """Which bounds of the space to move, by the best point's values."""
    return [remark for dimension in space if (remark := dimension.remark(best[dimension.name]))]
