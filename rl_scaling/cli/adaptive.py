"""The options of a batch size that follows the noise scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import AdaptiveBatchConfig
from rl_scaling.domains.supervised.config import AdaptiveExamplesConfig


@dataclass(frozen=True)
class AdaptiveOptions:
    """Off unless --adaptive says what an update is worth; the run then begins with --num-envs."""

    adaptive: float | None = None
    """Let the batch follow the noise scale, B = sqrt(r B_simple): this is r, the price of an update in frames."""
    min_envs: int = AdaptiveBatchConfig.min_envs
    """Adaptive batch: fewest environments."""
    max_envs: int = AdaptiveBatchConfig.max_envs
    """Adaptive batch: most environments."""
    group_envs: int = AdaptiveBatchConfig.group_envs
    """Adaptive batch: environments that are added or retired together."""
    change_every_updates: int = AdaptiveBatchConfig.change_every_updates
    """Adaptive batch: at most one change in so many updates."""
    tolerance: float = AdaptiveBatchConfig.tolerance
    """Adaptive batch: factor by which the batch must be off before it is changed."""
    rate_turn: float = AdaptiveBatchConfig.rate_turn
    """Adaptive batch: B* of A.3 in frames, by which the learning rate follows the batch."""
    rate_power: float = AdaptiveBatchConfig.rate_power
    """Adaptive batch: alpha of A.3; 0 keeps the learning rate."""

    def config(self) -> AdaptiveBatchConfig | None:
        """What these options describe; None where they are off.

        Raises:
            ConfigError: options of an adaptive batch without --adaptive, or what the config refuses.
        """
        given = dataclasses.asdict(self)
        exchange_rate = given.pop("adaptive")
        if exchange_rate is not None:
            return AdaptiveBatchConfig(exchange_rate=exchange_rate, **given)
        _refuse_changed(self)
        return None


@dataclass(frozen=True)
class AdaptiveExamplesOptions:
    """Off unless --adaptive says what an update is worth; the run then begins with --batch-size."""

    adaptive: float | None = None
    """Let the batch follow the noise scale, B = sqrt(r B_simple): this is r, the price of an update in examples."""
    min_batch_size: int = AdaptiveExamplesConfig.min_batch_size
    """Adaptive batch: fewest examples."""
    max_batch_size: int = AdaptiveExamplesConfig.max_batch_size
    """Adaptive batch: most examples."""
    change_every_updates: int = AdaptiveExamplesConfig.change_every_updates
    """Adaptive batch: at most one change in so many updates."""
    window_measurements: int = AdaptiveExamplesConfig.window_measurements
    """Adaptive batch: time constant of the moving average of the noise scale."""
    tolerance: float = AdaptiveExamplesConfig.tolerance
    """Adaptive batch: factor by which the batch must be off before it is changed."""
    rate_turn: float = AdaptiveExamplesConfig.rate_turn
    """Adaptive batch: B* of A.3 in examples, by which the learning rate follows the batch."""
    rate_power: float | None = None
    """Adaptive batch: alpha of A.3; 1, or 0.5 for Adam and RMSProp, unless given; 0 keeps the learning rate."""

    def config(self, *, rate_power: float, measure_every_updates: int) -> AdaptiveExamplesConfig | None:
        """What these options describe; None where they are off.

        Args:
            rate_power: where none was given.
            measure_every_updates: 0: as often as the config has it.

        Raises:
            ConfigError: options of an adaptive batch without --adaptive, or what the config refuses.
        """
        given = dataclasses.asdict(self)
        exchange_rate = given.pop("adaptive")
        if exchange_rate is None:
            _refuse_changed(self)
            return None
        given |= {"measure_every_updates": measure_every_updates} if measure_every_updates else {}
        given |= {"rate_power": rate_power} if self.rate_power is None else {}
        return AdaptiveExamplesConfig(exchange_rate=exchange_rate, **given)


def _refuse_changed(options: AdaptiveOptions | AdaptiveExamplesOptions) -> None:
    """Options that mean nothing without --adaptive."""
    for f in dataclasses.fields(options):
        if getattr(options, f.name) != f.default:
            raise ConfigError(f"--{f.name.replace('_', '-')} is for an adaptive batch: give --adaptive R as well")


def adaptive_between(num_envs: Sequence[int], exchange_rate: float) -> AdaptiveBatchConfig:
    """An adaptive batch with the bounds of a sweep, in the largest groups that make all its numbers of environments.

    >>> adaptive = adaptive_between([8, 24, 64], 300)
    >>> adaptive.min_envs, adaptive.max_envs, adaptive.group_envs
    (8, 64, 8)
    """
    return AdaptiveBatchConfig(
        exchange_rate=exchange_rate,
        min_envs=min(num_envs),
        max_envs=max(num_envs),
        group_envs=math.gcd(*num_envs),
    )
