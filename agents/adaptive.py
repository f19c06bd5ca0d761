"""A batch size that follows the noise scale while training (McCandlish et al. 2018, appendix D).

With r the price of an update in frames, the frames and updates of a training run cost least together where
B(s) = sqrt(r * B_noise(s)) (D.3); in practice B_simple stands for B_noise (D.6). The batch is changed through the
number of environments: whole groups of them are added or retired between two rollouts.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from rl_scaling.config import AdaptiveBatchConfig, RunConfig, rate_ratio
from rl_scaling.envs import GroupedVector, VectorSource
from rl_scaling.noise import NoiseScaleEstimate, NoiseScaleMeter

# A window's estimate lags behind a batch that changes by more than this at once.
_MOST_CHANGE = 2.0


class Resizable(Protocol):
    """What changing the batch needs of an agent."""

    learning_rate_factor: float

    def begin(self, source: VectorSource, observations: np.ndarray) -> None: ...


class AdaptiveBatch:
    """Changes the number of environments of one run.

    Args:
        config: of a run with `adaptive`.
        learner: acts in `source`; is told to begin again whenever that has changed, and at what learning rate (A.3).
        source: has been reset.

    Raises:
        TypeError: a source whose number of environments cannot change.
    """

    def __init__(self, config: RunConfig, learner: Resizable, source: VectorSource):
        assert config.adaptive is not None
        if not isinstance(source, GroupedVector):
            raise TypeError("an adaptive batch needs environments in groups: make_vector(..., group_envs=...)")
        self.config, self.adaptive = config, config.adaptive
        self.learner, self.source = learner, source

    def after_update(self, updates: int, meter: NoiseScaleMeter | None) -> int:
        """The number of environments from now on, changed when it is time and the estimate asks for it.

        Args:
            updates: how many there have been.
            meter: has the noise scale of the latest window; None while nothing was measured.
        """
        now = self.source.num_envs
        since_due = updates % self.adaptive.change_every_updates
        if since_due >= self.config.agent.updates_per_rollout or meter is None:
            return now
        each = self.config.agent.batch_size(now) / now
        wanted = next_num_envs(self.adaptive, each, now, meter.estimate())
        if wanted != now:
            self.set_num_envs(wanted, updates)
        return wanted

    def set_num_envs(self, num_envs: int, updates: int) -> None:
        """Add or retire groups, with seeds that follow from the run's seed and the updates so far."""
        seed = np.random.SeedSequence([self.config.seed, updates, num_envs]).generate_state(1)[0] >> 1
        observations = self.source.resize(num_envs, int(seed))
        self.learner.learning_rate_factor = rate_ratio(
            self.config.agent.batch_size(num_envs),
            self.config.batch_size,
            turn=self.adaptive.rate_turn,
            power=self.adaptive.rate_power,
        )
        self.learner.begin(self.source, observations)


def next_num_envs(
    adaptive: AdaptiveBatchConfig, frames_each: float, num_envs: int, estimate: NoiseScaleEstimate
) -> int:
    """How many environments to have for B = sqrt(r B_simple), D.6.

    While B_simple is unresolved its lower bound stands for it if that asks for more environments than there are;
    otherwise nothing changes. The number is rounded towards what it is now, so that an estimate near the middle between
    two of them does not move it to and fro, and it changes by a factor of 2 at most.

    Args:
        adaptive: r, bounds, group and tolerance.
        frames_each: frames per environment and update.
        num_envs: what there are now.
        estimate: of B_simple in frames.
    """
    noise_scale = estimate.b_simple if estimate.resolved else estimate.low
    wanted = math.sqrt(adaptive.exchange_rate * max(noise_scale, 0.0)) / frames_each
    ratio = wanted / num_envs
    if 1 / adaptive.tolerance < ratio < adaptive.tolerance or (ratio < 1 and not estimate.resolved):
        return num_envs
    group = adaptive.group_envs
    bounded = min(max(wanted, num_envs / _MOST_CHANGE, adaptive.min_envs), num_envs * _MOST_CHANGE, adaptive.max_envs)
    return group * (math.floor(bounded / group) if ratio > 1 else math.ceil(bounded / group))
