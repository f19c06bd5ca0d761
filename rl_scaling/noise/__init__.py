"""The gradient noise scale: moments of one batch, an estimate with its interval, a meter for training.

Names that need torch, or another library that is not always there, are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rl_scaling.noise.clusters import cluster_groups
from rl_scaling.noise.estimate import (
    NoiseScaleEstimate,
    estimate_noise_scale,
    example_trace,
    moments_from_groups,
    next_size,
)
from rl_scaling.noise.loss_terms import PartMeters
from rl_scaling.noise.meter import NoiseScaleMeter

if TYPE_CHECKING:
    from rl_scaling.noise.integrations.data_parallel import RankNoise
    from rl_scaling.noise.integrations.stable_baselines3 import NoiseScaleCallback
    from rl_scaling.noise.torch.gradient_noise import GradientNoise
    from rl_scaling.noise.torch.hessian import HessianNoiseScale, hessian_noise_scale
    from rl_scaling.noise.torch.line_search import LineSearchNoiseScale, line_search_noise_scale
    from rl_scaling.noise.torch.micro_batch_noise import MicroBatchNoise
    from rl_scaling.noise.torch.per_example_noise import PerExampleNoise

__all__ = [
    "GradientNoise",
    "HessianNoiseScale",
    "LineSearchNoiseScale",
    "MicroBatchNoise",
    "NoiseScaleCallback",
    "NoiseScaleEstimate",
    "NoiseScaleMeter",
    "PartMeters",
    "PerExampleNoise",
    "RankNoise",
    "cluster_groups",
    "estimate_noise_scale",
    "example_trace",
    "hessian_noise_scale",
    "line_search_noise_scale",
    "moments_from_groups",
    "next_size",
]

_LAZY = {
    "GradientNoise": "rl_scaling.noise.torch.gradient_noise",
    "HessianNoiseScale": "rl_scaling.noise.torch.hessian",
    "LineSearchNoiseScale": "rl_scaling.noise.torch.line_search",
    "MicroBatchNoise": "rl_scaling.noise.torch.micro_batch_noise",
    "NoiseScaleCallback": "rl_scaling.noise.integrations.stable_baselines3",
    "PerExampleNoise": "rl_scaling.noise.torch.per_example_noise",
    "RankNoise": "rl_scaling.noise.integrations.data_parallel",
    "hessian_noise_scale": "rl_scaling.noise.torch.hessian",
    "line_search_noise_scale": "rl_scaling.noise.torch.line_search",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
