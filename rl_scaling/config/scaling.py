"""How the learning rate scales with the batch (McCandlish et al. 2018, A.3), and a batch that follows the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rl_scaling.config.base import Config, require, require_fraction, require_positive

# A grid beyond these is a slip of the hand, and may leave what a float can hold.
_MOST_RATES, _MOST_DECADES = 1_000, 100


def rate_ratio(batch_size: float, reference: float, *, turn: float, power: float) -> float:
    """Learning rate at a batch size over that at a reference: eq. A.3 of McCandlish et al. 2018 without its maximum.

    >>> rate_ratio(1000, 250, turn=1000, power=1)
    2.5
    """
    return ((1 + turn / reference) / (1 + turn / batch_size)) ** power


@dataclass(frozen=True, kw_only=True)
class AdaptiveConfig(Config):
    """A batch size that follows the noise scale, B = sqrt(r B_simple) (McCandlish et al. 2018, D.3, D.6).

    Attributes:
        exchange_rate: price r of an update: the frames or examples that are worth spending to save one.
        change_every_updates: updates between two changes of the batch, at least.
        tolerance: factor by which the batch must be off before it is changed, so that it does not flap.
        rate_turn: B* of A.3 in frames or examples, by which the learning rate follows the batch size.
        rate_power: alpha of A.3; 0 keeps the learning rate.
    """

    exchange_rate: float
    change_every_updates: int = 100
    tolerance: float = 1.25
    rate_turn: float = 1000.0
    rate_power: float = 0.5

    def check(self) -> None:
        require_positive(self, "exchange_rate", "change_every_updates", "rate_turn")
        require(1 <= self.tolerance < math.inf, f"tolerance is {self.tolerance}: give a factor of 1 or more")
        require_fraction(self, "rate_power")

    @property
    def setting(self) -> str:
        """How its runs are told apart: r, and what differs from the defaults."""
        changed = [
            f"{f.name}={value:g}"
            for f in fields(self)
            if f.name != "exchange_rate" and (value := getattr(self, f.name)) != f.default
        ]
        return " ".join([f"adaptive r={self.exchange_rate:g}", *changed])

    def rate_factor(self, batch_size: float, reference: float) -> float:
        """`rate_ratio` by this rate_turn and rate_power."""
        return rate_ratio(batch_size, reference, turn=self.rate_turn, power=self.rate_power)


@dataclass(frozen=True, kw_only=True)
class LearningRates(Config):
    """A grid of learning rates for each batch size, centred on eq. A.3 of McCandlish et al. 2018.

    rate(B) = reference_rate * ((1 + turn / reference_batch) / (1 + turn / B)) ** power, which is A.3 with the maximal
    rate expressed by the rate known to work at one batch size.

    Attributes:
        reference_rate: a rate that works at `reference_batch`.
        reference_batch: in frames or examples.
        turn: B* of A.3, the batch size around which the best rate stops growing.
        power: alpha of A.3: 1 for SGD, 0.5 to 1 for RMSProp and Adam.
        count: rates per batch size.
        spacing: ratio of neighbouring rates.
        max_extensions: rates that may be added beyond each end of a grid whose best value lies on that end.
        fixed: these rates for every batch size instead.
    """

    reference_rate: float
    reference_batch: int
    turn: float
    power: float
    count: int = 3
    spacing: float = 2.0
    max_extensions: int = 2
    fixed: tuple[float, ...] = ()

    def check(self) -> None:
        for rate in (*self.fixed, self.reference_rate):
            require(math.isfinite(rate) and rate > 0, f"learning rate {rate} in the grid: give positive numbers")
        require_positive(self, "reference_batch", "turn")
        require_fraction(self, "power")
        grid = self.count >= 1 and 1 < self.spacing < math.inf
        require(grid, "the grid of learning rates needs a count of 1 or more and a spacing above 1")
        few = self.count <= _MOST_RATES and self.count * math.log10(self.spacing) <= _MOST_DECADES
        require(few, f"{self.count} learning rates a factor {self.spacing:g} apart: give fewer, or closer ones")
        require(self.max_extensions >= 0, f"max_extensions is {self.max_extensions}: give 0 (none) or more")

    def centre(self, batch_size: int) -> float:
        """The rate in the middle of the grid of a batch size."""
        ratio = rate_ratio(batch_size, self.reference_batch, turn=self.turn, power=self.power)
        return self.reference_rate * ratio

    def grid(self, batch_size: int) -> list[float]:
        """The rates tried first, ascending, rounded to three digits so that they read well and hash equal."""
        if self.fixed:
            return sorted(set(self.fixed))
        offsets = [i - (self.count - 1) / 2 for i in range(self.count)]
        return [_rounded(self.centre(batch_size) * self.spacing**offset) for offset in offsets]

    def beyond(self, tried: Sequence[float], best: float, batch_size: int) -> float | None:
        """The next rate to try when `best` lies on an edge of what was tried; None if it does not, or enough were."""
        lowest, highest = min(tried), max(tried)
        first = self.grid(batch_size)
        if best == highest and sum(rate > max(first) for rate in tried) < self.max_extensions:
            return _rounded(highest * self.spacing)
        if best == lowest and sum(rate < min(first) for rate in tried) < self.max_extensions:
            return _rounded(lowest / self.spacing)
        return None


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
