"""Networks for images, by name."""

from rl_scaling.supervised.models.make import MODELS, make_model

__all__ = ["MODELS", "make_model"]
