"""The gradient noise scale: moments of one batch, an estimate with its interval, a meter for training."""

from rl_scaling.noise.clusters import cluster_groups
from rl_scaling.noise.estimate import NoiseScaleEstimate, estimate_noise_scale
from rl_scaling.noise.meter import NoiseScaleMeter
from rl_scaling.noise.moments import example_trace, moments_from_groups
from rl_scaling.noise.parts import PartMeters

__all__ = [
    "NoiseScaleEstimate",
    "NoiseScaleMeter",
    "PartMeters",
    "cluster_groups",
    "estimate_noise_scale",
    "example_trace",
    "moments_from_groups",
]
