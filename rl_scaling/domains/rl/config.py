"""One reinforcement-learning run: an algorithm on copies of an environment, for a number of frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rl_scaling.agents.config import AlgorithmConfig
from rl_scaling.config import (
    AdaptiveConfig,
    Config,
    RunDescription,
    added_later,
    differing,
    parse,
    require,
    require_positive,
    variant_of,
)
from rl_scaling.domains.rl import registry as registry  # tells which configs may stand for an algorithm
from rl_scaling.envs.config import EnvironmentConfig
from rl_scaling.records import Identity


@dataclass(frozen=True, kw_only=True)
class NoiseScaleConfig(Config):
    """When and how the gradient noise scale is measured.

    Attributes:
        every_updates: one in N updates is measured; 0 turns measuring off.
        groups: groups of whole environments; no more than there are environments.
        window_measurements: time constant of the moving average that the running estimate uses.
        frame_gradients: single frames per measurement whose gradients are taken too, for the design effect.
        parts: also measure the policy's, the value's and the entropy's terms of the gradient, each by itself: three
            more backward passes per measurement.
    """

    every_updates: int = 20
    groups: int = 8
    window_measurements: int = 50
    frame_gradients: int = 8
    parts: bool = added_later(False)

    def check(self) -> None:
        """See `Config.check`."""
        require(self.every_updates >= 0, f"every_updates is {self.every_updates}: give 0 (off) or more")
        require(self.groups >= 2, f"groups is {self.groups}: the noise scale needs 2 groups or more")
        require_positive(self, "window_measurements")
        require(self.frame_gradients >= 0, f"frame_gradients is {self.frame_gradients}: give 0 (none) or more")


@dataclass(frozen=True, kw_only=True)
class AdaptiveBatchConfig(AdaptiveConfig):
    """An adaptive batch of frames: environments are added and retired in groups while training continues.

    Attributes:
        min_envs: fewest environments.
        max_envs: most environments.
        group_envs: environments that are added or retired together.
    """

    min_envs: int = 8
    max_envs: int = 256
    group_envs: int = 8

    def check(self) -> None:
        """See `Config.check`."""
        super().check()
        require_positive(self, "group_envs")
        require(2 <= self.min_envs <= self.max_envs, "give min_envs of 2 or more, and max_envs not below it")
        for name in ("min_envs", "max_envs"):
            value = getattr(self, name)
            require(value % self.group_envs == 0, f"{name} is {value}: give a multiple of group_envs={self.group_envs}")


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunDescription):
    """One training run: one agent, on copies of one environment, for a number of frames.

    Attributes:
        environment: what is played, in how many copies.
        agent: the algorithm and its settings.
        noise_scale: when and how the gradient noise scale is measured.
        frames: frames to train for, counted as the agent sees them (one per environment step).
        seed: of weights, actions and environments.
        record_every_frames: frames between two records.
        adaptive: changes the number of environments while training; the environment's own is where it begins.
    """

    domain: ClassVar[str] = "rl"

    environment: EnvironmentConfig
    agent: AlgorithmConfig
    noise_scale: NoiseScaleConfig = field(default_factory=NoiseScaleConfig)
    frames: int = 10_000_000
    seed: int = 0
    record_every_frames: int = 2_000
    adaptive: AdaptiveBatchConfig | None = added_later(None)

    def check(self) -> None:
        """See `Config.check`."""
        require_positive(self, "frames", "record_every_frames")
        require(self.seed >= 0, f"seed is {self.seed}: give 0 or more")
        self._check_network()
        self.agent.batch_size(self.environment.num_envs)  # refuses minibatches that do not divide the rollout
        if self.noise_scale.every_updates:
            self.agent.require_groups(self.environment.num_envs)
        if self.adaptive is not None:
            self._check_adaptive(self.adaptive)

    def _check_network(self) -> None:
        network, fitting = self.agent.network, self.environment.networks
        require(
            not fitting or network in fitting,
            f"network {network!r} does not fit {self.environment.name}: give {' or '.join(fitting)}",
        )

    def _check_adaptive(self, adaptive: AdaptiveBatchConfig) -> None:
        n, group = self.environment.num_envs, adaptive.group_envs
        require(
            adaptive.min_envs <= n <= adaptive.max_envs and n % group == 0,
            f"num_envs is {n}, where an adaptive batch begins: give a multiple of {group} from "
            f"{adaptive.min_envs} to {adaptive.max_envs}",
        )
        require(self.noise_scale.every_updates > 0, "an adaptive batch follows the noise scale: do not turn it off")
        require(not self.agent.annealed, "an adaptive batch sets the learning rate by itself: give constant schedules")
        self.agent.batch_size(group)  # refuses minibatches that would not divide every rollout

    @property
    def batch_size(self) -> int:
        """Frames per update; of an adaptive batch, at the start."""
        return self.agent.batch_size(self.environment.num_envs)

    @property
    def updates(self) -> int:
        """Updates made on the way to at least `frames` frames."""
        rollouts = -(-self.frames // (self.environment.num_envs * self.agent.rollout_steps))
        return rollouts * self.agent.updates_per_rollout

    @property
    def length(self) -> int:
        """Frames."""
        return self.frames

    @property
    def learning_rate(self) -> float:
        """The rate at the start."""
        return self.agent.learning_rate

    @property
    def setting(self) -> str:
        """How an adaptive batch is steered; otherwise nothing but the learning rate is tuned."""
        return "" if self.adaptive is None else self.adaptive.setting

    @property
    def identity(self) -> Identity:
        """Settings that differ from their defaults make a variant, so that two of them never share a front."""
        variant = differing(self.environment, "num_envs") + differing(self.agent, "learning_rate")
        if self.agent.annealed:
            variant.append(f"frames={self.frames}")  # the schedule is stretched over them
        return Identity(
            domain=self.domain,
            problem=self.environment.name,
            algorithm=self.agent.kind,
            variant=variant_of(variant),
            unit="frames",
            quantity="score",
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            setting=self.setting,
            exchange_rate=self.adaptive.exchange_rate if self.adaptive else math.nan,
            seed=self.seed,
        )


def run_config_from_dict(plain: dict[str, Any]) -> RunConfig:
    """The inverse of `to_dict` for a run.

    Raises:
        ConfigError: a kind or field that this version does not know.
    """
    return parse(RunConfig, plain, "run's config")
