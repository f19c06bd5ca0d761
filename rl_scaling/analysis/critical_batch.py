"""Critical batch sizes that need no fit: where a curve of steps has turned by a given factor."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike


def overhead_batch(
    batch_sizes: ArrayLike, steps: ArrayLike, factor: float, *, of: Literal["steps", "examples"]
) -> float:
    """The batch size at which steps, or examples, are `factor` times the fewest.

    Steps are fewest at the largest batch size and fall towards it; examples are fewest at the smallest and rise from
    it. Between batch sizes the curve is interpolated in logs. On the trade-off of McCandlish et al. 2018, eq. 2.11,
    twice the fewest steps is B_crit itself, and 20 % more than the fewest examples is B_crit / 5.

    Args:
        batch_sizes: (n,) in examples.
        steps: (n,) steps to the target at each.
        factor: above 1.
        of: what is `factor` times its least.

    Returns:
        The batch size; NaN where the curve does not reach that factor.

    Raises:
        ValueError: numbers that are not positive and finite, or a factor that is not above 1.

    >>> sizes = 4.0 ** np.arange(-4, 13)
    >>> round(overhead_batch(sizes, 100 * (1 + 64 / sizes), 2, of="steps"))
    64
    """
    log_sizes, log_steps = (np.log(np.asarray(x, dtype=np.float64)) for x in (batch_sizes, steps))
    if not (np.isfinite(log_sizes).all() and np.isfinite(log_steps).all()) or not factor > 1:
        raise ValueError("batch sizes and steps must be positive and finite, and the factor above 1")
    order = np.argsort(log_sizes)
    log_sizes, log_steps = log_sizes[order], log_steps[order]
    cost = log_steps[::-1] if of == "steps" else log_steps + log_sizes
    places = log_sizes[::-1] if of == "steps" else log_sizes
    excess = cost - cost.min() - math.log(factor)
    # From the end where the cost is least, the first crossing that is not taken back.
    last = np.flatnonzero(excess < 0)[-1]
    if last == len(excess) - 1:
        return math.nan
    share = excess[last] / (excess[last] - excess[last + 1])
    return float(np.exp(places[last] + share * (places[last + 1] - places[last])))
