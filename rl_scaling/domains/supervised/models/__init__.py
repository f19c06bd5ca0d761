"""Networks for images, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import SupervisedConfig
from rl_scaling.domains.supervised.data.dataset import Dataset
from rl_scaling.domains.supervised.models.deep import (
    project_channels,
    resnet8,
    resnet32,
    vgg11,
    wide_resnet,
    wide_resnet_skip_init,
)
from rl_scaling.domains.supervised.models.small import ImageShape, autoencoder, mlp, simple_cnn
from rl_scaling.domains.supervised.problems import source_of

__all__ = ["MODELS", "make_model", "model_of", "project_channels"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": simple_cnn,
    "small-cnn": partial(simple_cnn, channels=(8, 16), hidden=64),
    "resnet8": resnet8,
    "resnet32": resnet32,
    "vgg11": vgg11,
    "wide-resnet": wide_resnet,
    "wide-resnet-skipinit": wide_resnet_skip_init,
    "autoencoder": autoencoder,
}


def make_model(name: str, image_shape: ImageShape, num_classes: int, *, seed: int, **options: Any) -> nn.Module:
    """A model with its starting weights, which follow from the seed alone; on the CPU.

    Args:
        name: one of `MODELS`, or the model of a problem that brings its own.
        image_shape: (C, H, W).
        seed: of the starting weights; torch's own generator is left as it was.
        options: of the model; see the function that makes it.

    Returns:
        A module that maps (n, C, H, W) images to (n, num_classes) logits; "autoencoder" to (n, C, H, W) logits of the
        pixels, with its `loss`.

    Raises:
        ConfigError: there is no such model or option, or the images do not fit.

    >>> sum(p.numel() for p in make_model("mlp", (1, 8, 8), 10, seed=0).parameters())
    8970
    """
    make = MODELS.get(name) or source_of("model", name)
    if make is None:
        raise ConfigError(f"no model {name!r}: {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return make(image_shape, num_classes, **options)
        except TypeError as error:
            raise ConfigError(f"model {name!r} does not take these options: {error}") from error


def model_of(config: SupervisedConfig, data: Dataset) -> nn.Module:
    """A run's model with its starting weights; errors are those of `make_model`."""
    options = {"dropout": config.dropout} if config.dropout else {}
    return make_model(config.model, data.image_shape, data.num_classes, seed=config.seed, **options)
