"""The exponential moving average over heavy-ball or Nesterov momentum, exact by repeated squaring.

Three roots (two of the momentum, one of the average) leave no short closed form. The state (theta, v, average), with
the last step v = theta(t) - theta(t - 1), obeys x' = (I + Y) x + b noise, and t steps are made of log2(t) doublings:

    Y_{2n} = 2 Y_n + Y_n^2,      P_{2n} = P_n + (I + Y_n) P_n (I + Y_n)',

with P the second moments that noise of unit variance has built up. Kept as the difference Y from the identity, slow
modes lose no digits (the matrix form of expm1), and P only ever grows by positive terms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def averaged_momentum_moments(
    rate: FloatArray, momentum: FloatArray, averaging: FloatArray, steps: FloatArray, *, nesterov: bool
) -> tuple[FloatArray, FloatArray]:
    """Squared weight of the start, and second moment from steps of unit noise variance, of the average after t steps.

    Cost: log2(t) products of 3 x 3 matrices for every element; use it for checks and single curves.

    Args:
        rate: alpha h; momentum: beta; averaging: gamma; steps: t, whole numbers from 0. All broadcast to one shape.
        nesterov: which momentum.

    >>> one = np.array(0.5)
    >>> start, noise = averaged_momentum_moments(one, 0 * one, one, np.array(1.0), nesterov=False)
    >>> float(start), float(noise)      # (1/2 + 1/4)^2, (1/2)^2
    (0.5625, 0.25)
    """
    rate, momentum, averaging, steps = np.broadcast_arrays(rate, momentum, averaging, steps)
    step = _one_step(rate, momentum, averaging, nesterov=nesterov)
    injected = np.stack([np.ones_like(rate), np.ones_like(rate), 1 - averaging], axis=-1)
    grown, spread = step, injected[..., :, None] * injected[..., None, :]
    total, noise = np.zeros_like(step), np.zeros_like(spread)
    left = steps.astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        while left.any():
            odd = (left % 2 == 1)[..., None, None]
            noise = np.where(odd, _carried(grown, noise) + spread, noise)
            total = np.where(odd, total + grown + grown @ total, total)
            spread = spread + _carried(grown, spread)
            grown = 2 * grown + grown @ grown
            left = left // 2
    weight = 1 + total[..., 2, 0] + total[..., 2, 2]
    return np.square(weight), noise[..., 2, 2]


def _carried(grown: FloatArray, moments: FloatArray) -> FloatArray:
    """(I + Y) P (I + Y)'."""
    half = moments + grown @ moments
    return half + half @ np.swapaxes(grown, -1, -2)


def _one_step(rate: FloatArray, momentum: FloatArray, averaging: FloatArray, *, nesterov: bool) -> FloatArray:
    """Y of one step: theta' - theta, v' - v and average' - average from (theta, v, average)."""
    keep = momentum * (1 - rate) if nesterov else momentum
    lag = (1 - momentum) + rate * momentum if nesterov else 1 - momentum
    fresh = 1 - averaging
    zero = np.zeros_like(rate)
    rows = [[-rate, keep, zero], [-rate, -lag, zero], [fresh * (1 - rate), fresh * keep, -fresh]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
