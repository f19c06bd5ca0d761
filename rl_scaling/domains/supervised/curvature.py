"""B_noise, the noise scale weighted by the Hessian, at a point of a supervised run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.data.dataset import Split
from rl_scaling.domains.supervised.models.autoencoder import Autoencoder
from rl_scaling.noise.torch.hessian import HessianNoiseScale, hessian_noise_scale


@dataclass(frozen=True, kw_only=True)
class CurvatureSettings:
    """What a measurement of B_noise takes.

    Attributes:
        measurements: batches of groups.
        groups: of each.
        group_size: examples of a group, drawn with replacement.
        images: of the training data, from the first on, over which the Hessian is taken.
        seed: of the draws.
    """

    measurements: int = 20
    groups: int = 8
    group_size: int = 8
    images: int = 1_000
    seed: int = 0


def b_noise(model: nn.Module, split: Split, settings: CurvatureSettings | None = None) -> HessianNoiseScale:
    """B_noise = tr(H Sigma) / (G^T H G) (McCandlish et al. 2018, eq. 2.8) at a model's weights, which stay as they are.

    Batch normalisation and dropout are as in evaluation; the model is left in the mode it was in.

    Args:
        model: of classes.
        split: the training data, which the gradient, its covariance and the Hessian are of.
        settings: how much is measured; None: the defaults.

    Raises:
        ConfigError: an autoencoder, whose loss needs its inputs.
        ImportError: curvlinops is not installed.
    """
    if isinstance(model, Autoencoder):
        raise ConfigError("B_noise is measured for models of classes: an autoencoder is none")
    chosen = settings or CurvatureSettings()
    generator = torch.Generator().manual_seed(chosen.seed)
    shape = (chosen.measurements, chosen.groups, chosen.group_size)
    drawn = torch.randint(len(split), shape, generator=generator)
    measurements = ([split.batch(group) for group in batch] for batch in drawn)
    training = model.training
    model.eval()
    try:
        return hessian_noise_scale(model, _mean_loss, measurements, [split.batch(slice(0, chosen.images))])
    finally:
        model.train(training)


def _mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets)
