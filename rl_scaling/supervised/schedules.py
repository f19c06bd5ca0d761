"""Learning rates over a run, each a pure function of the config and the update."""

from __future__ import annotations

import math

from rl_scaling.supervised.config import SupervisedConfig


def learning_rate_at(config: SupervisedConfig, update: int) -> float:
    """The learning rate of an update, counted from 0.

    Linear decay is rate * (1 - (1 - kappa) t / T) for t <= T and kappa * rate after (Zhang et al. 2019, F.3). Halving
    is constant for the first half of the updates and then halved every further twentieth (Smith, Elsen and De 2020).
    """
    schedule, rate = config.schedule, config.learning_rate
    warmup = min(1.0, (update + 1) / schedule.warmup_updates) if schedule.warmup_updates else 1.0
    if schedule.name == "linear":
        share = min(1.0, update / schedule.decay_updates)
        return warmup * rate * (1 - (1 - schedule.final_factor) * share)
    if schedule.name == "halving":
        twentieths = math.floor(20 * update / config.updates)
        return warmup * rate * 0.5 ** max(0, twentieths - 9)
    return warmup * rate
