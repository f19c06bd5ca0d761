"""A batch size that follows the noise scale while training (McCandlish et al. 2018, appendix D).

With r the price of an update in frames, the frames and updates of a training run cost least together where
B(s) = sqrt(r * B_noise(s)) (D.3); in practice B_simple stands for B_noise (D.6). The batch is changed through the
number of environments: whole groups of them are added or retired between two rollouts.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs import GroupedVector, VectorSource
from rl_scaling.noise import NoiseScaleMeter, next_size


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
        wanted = next_size(
            self.adaptive,
            now,
            meter.estimate(),
            fewest=self.adaptive.min_envs,
            most=self.adaptive.max_envs,
            step=self.adaptive.group_envs,
            each=each,
        )
        if wanted != now:
            self.set_num_envs(wanted, updates)
        return wanted

    def set_num_envs(self, num_envs: int, updates: int) -> None:
        """Add or retire groups, with seeds that follow from the run's seed and the updates so far."""
        seed = np.random.SeedSequence([self.config.seed, updates, num_envs]).generate_state(1)[0] >> 1
        observations = self.source.resize(num_envs, int(seed))
        batch_size = self.config.agent.batch_size
        self.learner.learning_rate_factor = self.adaptive.rate_factor(batch_size(num_envs), self.config.batch_size)
        self.learner.begin(self.source, observations)
