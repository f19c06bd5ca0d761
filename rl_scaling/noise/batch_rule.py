"""From the noise scale to a batch size (McCandlish et al. 2018, appendix D), whatever the batch is made of."""

from __future__ import annotations

import math

from rl_scaling.config import AdaptiveConfig
from rl_scaling.noise.estimate import NoiseScaleEstimate

# A window's estimate lags behind a batch that changes by more than this at once.
_MOST_CHANGE = 2.0


def next_size(
    adaptive: AdaptiveConfig,
    now: int,
    estimate: NoiseScaleEstimate,
    *,
    fewest: int,
    most: int,
    step: int = 1,
    each: float = 1.0,
) -> int:
    """The size of the next batches for B = sqrt(r B_simple), D.6.

    While B_simple is unresolved its lower bound stands for it if that asks for a larger batch; otherwise nothing
    changes. The size is rounded towards what it is now, so that an estimate near the middle between two of them does
    not move it to and fro, and it changes by a factor of 2 at most.

    Args:
        adaptive: r and tolerance.
        now: the size, counted in what the batch grows by: examples, or environments.
        estimate: of B_simple in examples (frames).
        fewest, most: bounds, multiples of step.
        step: sizes are multiples of this.
        each: examples (frames) that one of what is counted brings to an update.
    """
    noise_scale = estimate.b_simple if estimate.resolved else estimate.low
    wanted = math.sqrt(adaptive.exchange_rate * max(noise_scale, 0.0)) / each
    ratio = wanted / now
    if 1 / adaptive.tolerance < ratio < adaptive.tolerance or (ratio < 1 and not estimate.resolved):
        return now
    bounded = min(max(wanted, now / _MOST_CHANGE, fewest), now * _MOST_CHANGE, most)
    return step * (math.floor(bounded / step) if ratio > 1 else math.ceil(bounded / step))
