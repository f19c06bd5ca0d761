"""The options of a batch size that follows the noise scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rl_scaling.config import AdaptiveBatchConfig, ConfigError


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
        for name, value in given.items():
            if value != getattr(AdaptiveOptions, name):
                raise ConfigError(f"--{name.replace('_', '-')} is for an adaptive batch: give --adaptive R as well")
        return None


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
