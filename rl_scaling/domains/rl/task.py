"""A sweep's side of reinforcement learning: which runs one task is made of, and how large a sweep is by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rl_scaling.agents.config import AlgorithmConfig, Network
from rl_scaling.config import ConfigError, LearningRates, require
from rl_scaling.domains.base import TaskPlan
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.envs.config import EnvironmentConfig, MinAtarConfig

ScaleName = Literal["smoke", "overnight", "paper"]


@dataclass(frozen=True, kw_only=True)
class RLTask(TaskPlan):
    """One environment and one algorithm over batch sizes, which are set by the number of environments.

    Attributes:
        batch_sizes: in frames per update.
        learning_rates: where the rates of each batch size are looked for; see `learning_rates_of`.
        goals: scores whose Pareto fronts are wanted.
        base: the run that all others are variants of.
        adaptive: batches that follow the noise scale, run after the fixed ones and beginning with `min_envs`, over the
            learning rates that are tried first there.
    """

    kind: ClassVar[str] = "rl"

    base: RunConfig
    adaptive: tuple[AdaptiveBatchConfig, ...] = ()

    def check(self) -> None:
        """See `Config.check`."""
        super().check()
        for batch_size in self.batch_sizes:
            self.base.agent.num_envs_for(batch_size)
        for goal in self.goals:
            require(math.isfinite(goal), f"goal {goal} is not a score: give finite numbers")

    def config(self, batch_size: int, learning_rate: float, seed: int, **tuned: float) -> RunConfig:
        """See `TaskPlan.config`; nothing but the learning rate is tuned."""
        if tuned:
            raise ConfigError(f"{', '.join(tuned)} cannot be tuned: of an agent the learning rate alone is")
        return self._run(self.base.agent.num_envs_for(batch_size), learning_rate, seed)

    def adaptive_configs(self, seed: int) -> Sequence[RunConfig]:
        """See `TaskPlan.adaptive_configs`."""
        return [
            dataclasses.replace(self._run(adaptive.min_envs, rate, seed), adaptive=adaptive)
            for adaptive in self.adaptive
            for rate in self.learning_rates.grid(self.base.agent.batch_size(adaptive.min_envs))
        ]

    def _run(self, num_envs: int, learning_rate: float, seed: int) -> RunConfig:
        return dataclasses.replace(
            self.base,
            environment=dataclasses.replace(self.base.environment, num_envs=num_envs),
            agent=dataclasses.replace(self.base.agent, learning_rate=learning_rate),
            seed=seed,
        )


def learning_rates_of(
    agent: AlgorithmConfig,
    *,
    reference_rate: float | None = None,
    count: int = LearningRates.count,
    spacing: float = LearningRates.spacing,
    max_extensions: int = LearningRates.max_extensions,
    fixed: tuple[float, ...] = (),
) -> LearningRates:
    """The rates to look at for an algorithm: by A.3 from those that its default settings are known to work with.

    Args:
        agent: its settings, of which only those matter that make another algorithm of it.
        reference_rate: a rate that works with the algorithm's `reference_num_envs`; None: its default.
        count, spacing, max_extensions, fixed: see `LearningRates`.
    """
    default = agent.at_defaults
    turn, power = default.rate_rule
    return LearningRates(
        reference_rate=default.learning_rate if reference_rate is None else reference_rate,
        reference_batch=default.batch_size(default.reference_num_envs),
        turn=turn,
        power=power,
        count=count,
        spacing=spacing,
        max_extensions=max_extensions,
        fixed=fixed,
    )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of a sweep of one game; its numbers of environments are the algorithm's (`num_envs_of_scale`).

    Attributes:
        frames: of every trial.
        network: what learns.
        rates: learning rates per batch size, before extensions.
        extensions: rates that may be added on each side.
        seeds: of every combination.
        best_seeds: further seeds at the best rates.
        noise_every_updates: the noise scale is measured in one of this many updates.
    """

    frames: int = 2_000_000
    network: Network = "nature"
    rates: int = LearningRates.count
    extensions: int = LearningRates.max_extensions
    seeds: tuple[int, ...] = (0,)
    best_seeds: tuple[int, ...] = ()
    noise_every_updates: int = NoiseScaleConfig.every_updates


# Its frames cost a hundredth of Atari's; 5 million are those of the paper (Young & Tian 2019).
_MINATAR_FRAMES = {"plain": 1_000_000, "smoke": 50_000, "overnight": 2_000_000, "paper": 5_000_000}

# By the names of `AlgorithmConfig.num_envs_of_scale`; "plain" is what is not named.
SCALES: dict[ScaleName | Literal["plain"], Scale] = {
    "plain": Scale(),
    "smoke": Scale(frames=12_000, network="small", rates=1, extensions=0, noise_every_updates=1),
    "overnight": Scale(network="small", best_seeds=(1,), noise_every_updates=4),
    "paper": Scale(frames=20_000_000, best_seeds=(1, 2)),
}


def scale_of(name: ScaleName | None, environment: EnvironmentConfig) -> Scale:
    """The size of a sweep by name (None: the plain one), with what a MinAtar game takes in place of an Atari game."""
    scale = SCALES[name or "plain"]
    if isinstance(environment, MinAtarConfig):
        return dataclasses.replace(scale, frames=_MINATAR_FRAMES[name or "plain"], network="minatar")
    return scale
