"""The noise scale of a run while it trains, the batch size that follows it, and B_noise at a point of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import GROUPS, WINDOW, SupervisedConfig
from rl_scaling.domains.supervised.data.dataset import Split
from rl_scaling.domains.supervised.models.small import Autoencoder
from rl_scaling.noise import NoiseScaleEstimate, NoiseScaleMeter, next_size
from rl_scaling.noise.meter import Measurement
from rl_scaling.noise.torch.hessian import HessianNoiseScale, hessian_noise_scale


class RunNoise:
    """What one run's updates say of B_simple: moments since its last record, and a running estimate.

    Attributes:
        every: one in this many updates is measured, the first among them.
        groups: of examples; a smaller batch has as many as it has examples.
    """

    def __init__(self, *, every: int, groups: int = GROUPS, window: float = WINDOW):
        self.every, self.groups = every, groups
        self._meter = NoiseScaleMeter(1, window=window)
        self._found: list[tuple[float, float]] = []

    def due(self, updates: int) -> bool:
        """Whether the next update is measured, after this many."""
        return updates % self.every == 0

    def add(self, measurement: Measurement) -> None:
        """Take in what an update said; one whose gradients were not finite is left out."""
        self._meter.add(measurement)
        if math.isfinite(measurement.grad_sq_norm + measurement.trace_cov):
            self._found.append((measurement.grad_sq_norm, measurement.trace_cov))

    def estimate(self) -> NoiseScaleEstimate | None:
        """That of the window; None while nothing was measured."""
        try:
            return self._meter.estimate()
        except ValueError:
            return None

    def columns(self, *, running: bool) -> dict[str, float]:
        """The columns of a record, of the measurements since the last call.

        Args:
            running: whether the running estimate is wanted, which takes about as long as several small updates.
        """
        found, self._found = self._found, []
        if not found:
            return {}
        columns: dict[str, float] = {
            "noise_measurements": len(found),
            "grad_sq_norm": fmean(square for square, _ in found),
            "trace_cov": fmean(trace for _, trace in found),
        }
        if running and (estimate := self.estimate()) is not None:
            columns |= {"noise_scale": estimate.b_simple}
            columns |= {"noise_scale_low": estimate.low, "noise_scale_high": estimate.high}
        return columns

    def state(self) -> dict[str, Any]:
        """As plain data, taken right after a record."""
        return self._meter.state_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._meter.load_state_dict(dict(state))


def run_noise(config: SupervisedConfig) -> RunNoise | None:
    """How a run is measured: as its adaptive batch has it, otherwise as its config has it; None for not at all."""
    if (adaptive := config.adaptive) is not None:
        return RunNoise(
            every=adaptive.measure_every_updates, groups=adaptive.groups, window=adaptive.window_measurements
        )
    if not config.noise_every_updates or config.batch_size < 2:
        return None
    return RunNoise(every=config.noise_every_updates)


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
        """Change it when it is time and the estimate asks for it."""
        adaptive = self._adaptive
        if adaptive is None or noise is None or updates % adaptive.change_every_updates:
            return
        if (estimate := noise.estimate()) is not None:
            low, high = adaptive.min_batch_size, adaptive.max_batch_size
            self.examples = next_size(adaptive, self.examples, estimate, fewest=low, most=high)
            self.rate_factor = adaptive.rate_factor(self.examples, self._begun)

    def resume(self, examples: int) -> None:
        """Continue with a batch size."""
        self.examples = examples
        if self._adaptive is not None:
            self.rate_factor = self._adaptive.rate_factor(examples, self._begun)


def b_noise(
    model: nn.Module,
    split: Split,
    *,
    measurements: int = 20,
    groups: int = 8,
    group_size: int = 8,
    images: int = 1_000,
    seed: int = 0,
) -> HessianNoiseScale:
    """B_noise = tr(H Sigma) / (G^T H G) (McCandlish et al. 2018, eq. 2.8) at a model's weights, which stay as they are.

    Batch normalisation and dropout are as in evaluation; the model is left in the mode it was in.

    Args:
        model: of classes.
        split: the training data, which the gradient, its covariance and the Hessian are of.
        measurements: batches of groups.
        group_size: examples of a group, drawn with replacement.
        images: of the training data, from the first on, over which the Hessian is taken.

    Raises:
        ConfigError: an autoencoder, whose loss needs its inputs.
        ImportError: curvlinops is not installed.
    """
    if isinstance(model, Autoencoder):
        raise ConfigError("B_noise is measured for models of classes: an autoencoder is none")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(split), (measurements, groups, group_size), generator=generator)
    batches = ([split.batch(group) for group in batch] for batch in drawn)
    training = model.training
    model.eval()
    try:
        return hessian_noise_scale(model, _mean_loss, batches, [split.batch(slice(0, images))])
    finally:
        model.train(training)


def _mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets)
