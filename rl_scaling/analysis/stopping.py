"""Which runs may be stopped because nothing they still do can change a front.

For a goal and a batch size one learning rate goes on the front: the one with the fewest updates (`rl_scaling.analysis.
fronts`). A run that has already used as many updates as a rival needed for every goal that is still open to it can
only come later, so stopping it changes no front of those goals, smoothed in the same way. Other things it may change:
learning-rate curves, which then show that rate as "stopped"; bootstrap intervals over seeds, whose draws choose among
fewer rates; and fronts of goals that were not asked for while it ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

# A learning rate, or one with what else was tuned: anything that can be ordered.
_Setting = TypeVar("_Setting", bound=Any)


@dataclass(frozen=True)
class Progress:
    """How far one run has come.

    Attributes:
        updates: updates used so far: `GoalTracker.updates`, the moment of the smoothed score, which is comparable with
            the moments at which goals were reached; 0 for a run that has not begun.
        reached: the updates at which it reached goals.
        ended: it is over: what it has not reached it never will.
    """

    updates: float
    reached: Mapping[float, float]
    ended: bool = False


def rate_can_still_win(
    run: Progress, other_seeds: Sequence[Progress], rivals: Iterable[Sequence[Progress]], goals: Iterable[float]
) -> bool:
    """Whether continuing a run can still put its learning rate on a front that is chosen over several seeds.

    A rate counts for a goal once all its seeds have reached it, with the geometric mean of their updates. A seed that
    has not reached the goal will need more than it has used so far, which bounds the mean from below; a rival rate is
    certain once all its seeds have reached the goal. False only if for every goal that is open to the run some rival's
    certain mean is no greater than the bound, or another seed of the rate has ended without reaching the goal. As long
    as some seed of the rate has not begun, the bound is 0 and the answer True, so seeds run side by side save most.

    Args:
        run: the run that might be stopped.
        other_seeds: the other seeds of the same learning rate, planned ones included.
        rivals: for every other learning rate of the same task and batch size, all its seeds, planned ones included.
    """
    rate = [run, *other_seeds]
    certain = [list(rival) for rival in rivals]
    return any(
        goal not in run.reached
        and _log_mean(rate, goal) < min((_log_mean_if_certain(rival, goal) for rival in certain), default=math.inf)
        for goal in goals
    )


def leading_rates(rates: Mapping[_Setting, Sequence[Progress]], goals: Iterable[float]) -> list[_Setting]:
    """The learning rates of one batch size that are on the front of some goal as things stand, ascending.

    As on the front itself, a rate is judged by the geometric mean over its seeds, all of which must have reached the
    goal, and the smaller of two equal rates is taken.

    Args:
        rates: the seeds of every learning rate, those that are known.
    """
    leaders = set()
    for goal in goals:
        log_mean, rate = min((_log_mean_if_certain(seeds, goal), rate) for rate, seeds in rates.items())
        if log_mean < math.inf:
            leaders.add(rate)
    return sorted(leaders)


def _log_mean(seeds: Sequence[Progress], goal: float) -> float:
    """Log of the least that the geometric mean over the seeds can still become."""
    return sum(_log_least(seed, goal) for seed in seeds) / len(seeds)


def _log_least(seed: Progress, goal: float) -> float:
    if goal not in seed.reached and seed.ended:
        return math.inf
    least = seed.reached.get(goal, seed.updates)
    # A finite stand-in for log 0, so that a seed without a start and one without hope do not add up to NaN.
    return math.log(least) if least > 0 else -1e9


def _log_mean_if_certain(seeds: Sequence[Progress], goal: float) -> float:
    if not seeds or any(goal not in seed.reached for seed in seeds):
        return math.inf
    return sum(math.log(seed.reached[goal]) for seed in seeds) / len(seeds)
