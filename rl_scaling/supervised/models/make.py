"""Every model under its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from rl_scaling.config import ConfigError
from rl_scaling.supervised.models.mlp import mlp
from rl_scaling.supervised.models.shapes import ImageShape
from rl_scaling.supervised.models.simple_cnn import simple_cnn

MODELS: Mapping[str, Callable[..., nn.Module]] = {"mlp": mlp, "cnn": simple_cnn}


def make_model(name: str, image_shape: ImageShape, num_classes: int, *, seed: int, **options: Any) -> nn.Module:
    """A model with its starting weights, which follow from the seed alone; on the CPU.

    Args:
        name: one of `MODELS`.
        image_shape: (C, H, W).
        num_classes: number of logits.
        seed: of the starting weights; torch's own generator is left as it was.
        options: of the model; see the function that makes it.

    Returns:
        A module that maps (n, C, H, W) images to (n, num_classes) logits.

    Raises:
        ConfigError: there is no such model or option, or the images do not fit.

    >>> sum(p.numel() for p in make_model("mlp", (1, 8, 8), 10, seed=0).parameters())
    8970
    """
    if name not in MODELS:
        raise ConfigError(f"no model {name!r}: {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return MODELS[name](image_shape, num_classes, **options)
        except TypeError as error:
            raise ConfigError(f"model {name!r} does not take these options: {error}") from error
