"""One reinforcement-learning run: an algorithm on copies of an environment, for a number of frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from rl_scaling.agents.config import AlgorithmConfig
from rl_scaling.config import (
    AdaptiveConfig,
    Config,
    RunDescription,
    added_later,
    differing,
    parse,
    require,
    require_one_of,
    require_positive,
    variant_of,
)
from rl_scaling.domains.rl import registry as registry  # tells which configs may stand for an algorithm
from rl_scaling.envs.config import EnvironmentConfig
from rl_scaling.records import FROZEN, Identity

# B_noise takes one group for the Hessian, and two at least for gradients that are independent of it and of each other.
FEWEST_CURVATURE_GROUPS = 3


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
        measure_at: "goals" keeps the weights at the first reach of each goal and at the end of the run, where the
            noise scale is then measured by itself (`FrozenConfig`); "nowhere" keeps none.
    """

    domain: ClassVar[str] = "rl"

    environment: EnvironmentConfig
    agent: AlgorithmConfig
    noise_scale: NoiseScaleConfig = field(default_factory=NoiseScaleConfig)
    frames: int = 10_000_000
    seed: int = 0
    record_every_frames: int = 2_000
    adaptive: AdaptiveBatchConfig | None = added_later(None)
    measure_at: Literal["nowhere", "goals"] = added_later("nowhere")

    def check(self) -> None:
        """See `Config.check`."""
        require_positive(self, "frames", "record_every_frames")
        require_one_of(self, "measure_at", "nowhere", "goals")
        require(self.seed >= 0, f"seed is {self.seed}: give 0 or more")
        object.__setattr__(self, "agent", self.agent.as_algorithm)  # however it was said, it is one question
        _require_network(self.agent, self.environment)
        self.agent.batch_size(self.environment.num_envs)  # refuses minibatches that do not divide the rollout
        if self.noise_scale.every_updates:
            self.agent.require_groups(self.environment.num_envs)
        if self.adaptive is not None:
            self._check_adaptive(self.adaptive)

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
    def keeps_checkpoints(self) -> bool:
        """See `RunDescription.keeps_checkpoints`."""
        return self.measure_at == "goals"

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


def _require_network(agent: AlgorithmConfig, environment: EnvironmentConfig) -> None:
    network, fitting = agent.network, environment.networks
    require(
        not fitting or network in fitting,
        f"network {network!r} does not fit {environment.name}: give {' or '.join(fitting)}",
    )


@dataclass(frozen=True, kw_only=True)
class FrozenConfig(RunDescription):
    """A noise scale measured with the weights kept: an agent plays on and learns nothing.

    Attributes:
        environment: what is played, in how many copies.
        agent: the algorithm, whose loss and rollouts are looked at.
        until_factor: measuring ends when the interval of B_simple is as narrow as this factor to both sides,
            high / low <= until_factor^2.
        frames: frames to measure with at most, counted as the agent sees them.
        groups: groups of whole environments; no more than there are environments.
        pooled_frames: frames, of one rollout or several in a row, whose gradients are averaged before |G|^2 is taken.
        frame_gradients: single frames per rollout whose gradients are taken too, for the design effect.
        curvature_splits: splits of the groups, for each row, in which products with the Hessian are taken, for B_noise;
            0: none.
        settle_steps: steps of every environment before anything is measured, which are not counted.
        seed: of actions and environments, and of the weights where they are those of the start.
        of_run: run whose weights they are; "": those that an agent with this seed begins with.
        of_updates, of_frames: how far that run was.
        goal: what it had just reached; None: nothing in particular.
    """

    domain: ClassVar[str] = "rl"
    kind: ClassVar[str] = "frozen"

    environment: EnvironmentConfig
    agent: AlgorithmConfig
    until_factor: float = 2.0
    frames: int = 200_000
    groups: int = 16
    pooled_frames: int = 2_560
    frame_gradients: int = 8
    curvature_splits: int = 4
    settle_steps: int = 0
    seed: int = 0
    of_run: str = ""
    of_updates: int = 0
    of_frames: int = 0
    goal: float | None = None

    def check(self) -> None:
        """See `Config.check`."""
        require_positive(self, "frames", "pooled_frames", "until_factor")
        object.__setattr__(self, "agent", self.agent.as_algorithm)
        _require_network(self.agent, self.environment)
        require(self.until_factor > 1, f"until_factor is {self.until_factor}: give a factor above 1")
        for name in ("frame_gradients", "curvature_splits", "settle_steps", "seed"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: give 0 or more")
        require(self.groups >= 2, f"groups is {self.groups}: the noise scale needs 2 groups or more")
        few = min(self.groups, self.environment.num_envs)
        require(few >= 2, "one environment gives no groups to compare: give num_envs 2 or more")
        require(
            few >= FEWEST_CURVATURE_GROUPS or not self.curvature_splits,
            f"B_noise needs {FEWEST_CURVATURE_GROUPS} groups or more: give more environments or curvature_splits 0",
        )

    @property
    def length(self) -> int:
        """Frames, at the most."""
        return self.frames

    @property
    def place(self) -> str:
        """Where in training, for people."""
        if not self.of_run:
            return "at the start"
        return f"after {self.of_frames:,} frames" if self.goal is None else f"at {self.goal:g}"

    @property
    def identity(self) -> Identity:
        """A task of its own beside the one that the agent learns: nothing is learned here."""
        variant = [*differing(self.environment, "num_envs"), *differing(self.agent, "learning_rate"), FROZEN]
        return Identity(
            domain=self.domain,
            problem=self.environment.name,
            algorithm=self.agent.kind,
            variant=variant_of(variant),
            unit="frames",
            quantity="score",
            batch_size=self.environment.num_envs * self.agent.rollout_steps,
            learning_rate=self.agent.learning_rate,
            setting=self.place,
            seed=self.seed,
        )


def run_config_from_dict(plain: dict[str, Any]) -> RunConfig:
    """The inverse of `to_dict` for a run.

    Raises:
        ConfigError: a kind or field that this version does not know.
    """
    return parse(RunConfig, plain, "run's config")
