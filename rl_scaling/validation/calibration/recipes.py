"""What usual recipes would have answered; each is wrong in its own way."""

from __future__ import annotations

import numpy as np

from rl_scaling.noise.clusters import design_effect_of_clusters
from rl_scaling.validation.calibration.noise import FloatArray


def plain_ratio(squares: FloatArray, traces: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean tr(Sigma) over mean |G|^2: right but for the bias of a ratio.

    Args:
        squares: (repeats, measurements) estimates of |G|^2.
        traces: (repeats, measurements) estimates of tr(Sigma).
        weights: (measurements,).
    """
    return (traces @ weights) / (squares @ weights)


def clamped(squares: FloatArray, traces: FloatArray, weights: FloatArray) -> FloatArray:
    """The same with each |G|^2 set to zero where it is negative."""
    return plain_ratio(np.maximum(squares, 0), traces, weights)


def mean_of_ratios(squares: FloatArray, traces: FloatArray, weights: FloatArray) -> FloatArray:
    """The mean of the measurements' own ratios."""
    return (traces / squares) @ weights / weights.sum()


def shuffled_frames(noise_scale: float, groups: int, frames: int, correlation: float) -> float:
    """Groups of frames dealt at random from all environments, in the limit of many measurements, over the truth.

    Frames of different groups come from the same environment with probability (frames - 1) / (groups * frames - 1);
    what they share of their noise is taken for signal.

    Args:
        noise_scale: the true one, of whole environments, in frames, for |G|^2 = 1.
        groups: environments.
        frames: per environment.
        correlation: of frames of one environment.

    >>> round(2200 * shuffled_frames(2200, groups=64, frames=16, correlation=0.3))
    144
    """
    trace = noise_scale / design_effect_of_clusters([frames], correlation)
    shared = correlation * (frames - 1) / (groups * frames - 1)
    return trace * (1 - shared) / (1 + trace * shared) / noise_scale


def time_step_groups(noise_scale: float, groups: int, frames: int, correlation: float) -> float:
    """Groups of the frames of one time step from all environments; else as `shuffled_frames`.

    >>> round(2200 * time_step_groups(2200, groups=64, frames=16, correlation=0.3))
    97
    """
    trace = noise_scale / design_effect_of_clusters([frames], correlation)
    return trace * (1 - correlation) / (1 + trace * correlation / groups) / noise_scale
