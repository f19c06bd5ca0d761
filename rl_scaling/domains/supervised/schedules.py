"""Learning rates over a run, each a pure function of the config and the update."""

from __future__ import annotations

import math

from rl_scaling.domains.supervised.config import SupervisedConfig


class LearningRate:
    """The learning rate of each update of one run, which hears the training loss where its schedule depends on it.

    McCandlish et al. 2018, A.4.1, divide ImageNet's rate by 10 when the smoothed training error comes down to each of
    three thresholds, so that batch sizes are compared at the same place of training. Here it is the loss over the
    training data at a run's records, which needs no smoothing.

    Attributes:
        passed: thresholds that the loss has come down to.
    """

    def __init__(self, config: SupervisedConfig):
        self._config = config
        self.passed = 0

    def __call__(self, update: int) -> float:
        return learning_rate_at(self._config, update) * self._config.schedule.factor**self.passed

    def hear(self, training_loss: float) -> None:
        """Take in the loss over the training data; what was passed once stays passed."""
        self.passed = max(self.passed, sum(training_loss <= t for t in self._config.schedule.thresholds))


def learning_rate_at(config: SupervisedConfig, update: int) -> float:
    """The learning rate of an update, counted from 0, but for what a training loss has triggered.

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
