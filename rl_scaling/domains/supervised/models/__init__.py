"""Networks for images, by name."""

from rl_scaling.domains.supervised.models.channel_norm import project_channels
from rl_scaling.domains.supervised.models.make import MODELS, make_model, model_of

__all__ = ["MODELS", "make_model", "model_of", "project_channels"]
