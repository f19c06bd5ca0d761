"""The options of a batch size that follows the noise scale: those of its config, off unless --adaptive is given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Suppress, arg

from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import AdaptiveBatchConfig
from rl_scaling.domains.supervised.config import AdaptiveExamplesConfig

_ExchangeRate = Annotated[float | None, arg(name="adaptive", metavar="FLOAT")]


@dataclass(frozen=True, kw_only=True)
class AdaptiveOptions(AdaptiveBatchConfig):
    """Batch that follows the noise scale; the run begins with --num-envs.

    Attributes:
        exchange_rate: Let the batch follow the noise scale, B = sqrt(r B_simple): this is r, the price of an update in
            frames.
    """

    exchange_rate: _ExchangeRate = None  # pyright: ignore[reportIncompatibleVariableOverride]

    def check(self) -> None:
        """Nothing: `config` does."""

    def config(self) -> AdaptiveBatchConfig | None:
        """What these options describe; None where they are off.

        Raises:
            ConfigError: options of an adaptive batch without --adaptive, or what the config refuses.
        """
        if self.exchange_rate is None:
            return _refuse_changed(self)
        return AdaptiveBatchConfig(**dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class AdaptiveExamplesOptions(AdaptiveExamplesConfig):
    """Batch that follows the noise scale; the run begins with --batch-size.

    Attributes:
        exchange_rate: Let the batch follow the noise scale, B = sqrt(r B_simple): this is r, the price of an update in
            examples.
        rate_power: alpha of A.3; by default 1, or 0.5 for Adam and RMSProp; 0 keeps the learning rate.
    """

    exchange_rate: _ExchangeRate = None  # pyright: ignore[reportIncompatibleVariableOverride]
    rate_power: float | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    measure_every_updates: Suppress[int] = AdaptiveExamplesConfig.measure_every_updates
    groups: Suppress[int] = AdaptiveExamplesConfig.groups

    def check(self) -> None:
        """Nothing: `config` does."""

    def config(self, *, rate_power: float, measure_every_updates: int) -> AdaptiveExamplesConfig | None:
        """What these options describe; None where they are off.

        Args:
            rate_power: where none was given.
            measure_every_updates: 0: as often as the config has it.

        Raises:
            ConfigError: options of an adaptive batch without --adaptive, or what the config refuses.
        """
        if self.exchange_rate is None:
            return _refuse_changed(self)
        given = dataclasses.asdict(self)
        given |= {"measure_every_updates": measure_every_updates} if measure_every_updates else {}
        given |= {"rate_power": rate_power} if self.rate_power is None else {}
        return AdaptiveExamplesConfig(**given)


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
