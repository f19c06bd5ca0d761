"""The noise scale of one run while it trains, and the batch size that follows it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import fmean

from torch import nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import SupervisedConfig
from rl_scaling.noise import GradientNoise, NoiseScaleEstimate, next_size

GROUPS = 8
WINDOW = 50
_WHOLE = "total"


@dataclass(frozen=True, kw_only=True)
class NoiseColumns:
    """What a row says of the noise scale.

    Attributes:
        noise_measurements: updates since the row before that were measured.
        grad_sq_norm, trace_cov: means over them of the unbiased estimates of |G|^2 and tr(Sigma) (A.2); NaN without.
        noise_scale: the running estimate of B_simple in examples; NaN while unresolved.
        noise_scale_low, noise_scale_high: its 95 % interval.
    """

    noise_measurements: int = 0
    grad_sq_norm: float = math.nan
    trace_cov: float = math.nan
    noise_scale: float = math.nan
    noise_scale_low: float = math.nan
    noise_scale_high: float = math.nan


class RunNoise:
    """Measures B_simple from groups of a batch's gradients, which its own backward pass adds up (`GradientNoise`).

    Args:
        model: that trains.
        every: one update in this many is measured, from the first on.
        groups: of examples; a smaller batch has as many as it has examples.
        window: time constant of the running estimate, in measurements.

    Raises:
        ConfigError: a model whose gradients do not come apart, as with batch normalisation.
    """

    def __init__(self, model: nn.Module, *, every: int, groups: int = GROUPS, window: float = WINDOW):
        self._every, self._updates = every, 0
        try:
            self._gradients = GradientNoise(model, groups=groups, every=every, window=window)
        except ValueError as error:
            raise ConfigError(f"the noise scale of this model cannot be measured while it trains: {error}") from error
        self._found: list[tuple[float, float]] = []

    def around(self, examples: int) -> AbstractContextManager[None]:
        """Put forward and backward pass of an update inside."""
        return self._gradients.measure(examples)

    def after_update(self) -> None:
        """Take in what the update said, if it was one that is measured."""
        measured = self._updates % self._every == 0
        self._updates += 1
        if measured and (latest := self._gradients.meter[_WHOLE].latest) and math.isfinite(latest.trace_cov):
            self._found.append((latest.grad_sq_norm, latest.trace_cov))

    def estimate(self) -> NoiseScaleEstimate | None:
        """That of the window; None while nothing was measured."""
        try:
            return self._gradients.estimate()
        except ValueError:
            return None

    def columns(self) -> NoiseColumns:
        """What there is to say since the last call."""
        found, self._found = self._found, []
        if not found or (estimate := self.estimate()) is None:
            return NoiseColumns()
        return NoiseColumns(
            noise_measurements=len(found),
            grad_sq_norm=fmean(square for square, _ in found),
            trace_cov=fmean(trace for _, trace in found),
            noise_scale=estimate.b_simple,
            noise_scale_low=estimate.low,
            noise_scale_high=estimate.high,
        )


def run_noise(config: SupervisedConfig, model: nn.Module, every: int) -> RunNoise | None:
    """How a run is measured: as its adaptive batch has it, otherwise one update in `every`; None for 0.

    Raises:
        ConfigError: a batch of one example, or what `RunNoise` refuses.
    """
    if (adaptive := config.adaptive) is not None:
        every, groups = adaptive.measure_every_updates, adaptive.groups
        return RunNoise(model, every=every, groups=groups, window=adaptive.window_measurements)
    if every and config.batch_size < 2:
        raise ConfigError("one example gives no groups to compare: give a batch size of 2 or more, or measure no noise")
    return RunNoise(model, every=every) if every else None


class BatchSize:
    """The batch size of a run, B = sqrt(r B_simple) (M18, D.6) where it is adaptive, and what A.3 makes of its rate.

    Attributes:
        examples: in the next batch.
        rate_factor: of the learning rate, 1 at the batch size at which the run began.
    """

    def __init__(self, config: SupervisedConfig):
        self._begun, self._adaptive = config.batch_size, config.adaptive
        self.examples, self.rate_factor = config.batch_size, 1.0

    def after_update(self, updates: int, noise: RunNoise | None) -> None:
        """Change it when it is time and the estimate asks for it.

        Args:
            updates: how many there have been.
            noise: of the run.
        """
        adaptive = self._adaptive
        if adaptive is None or noise is None or updates % adaptive.change_every_updates:
            return
        if (estimate := noise.estimate()) is not None:
            low, high = adaptive.min_batch_size, adaptive.max_batch_size
            self.examples = next_size(adaptive, self.examples, estimate, fewest=low, most=high)
            self.rate_factor = adaptive.rate_factor(self.examples, self._begun)
