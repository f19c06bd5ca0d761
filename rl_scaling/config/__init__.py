"""What to run: frozen, validated descriptions, from which every size and the run's identity follow.

A config holds the question and nothing about the machine that answers it: device, threads and versions are
provenance and belong to the store. The run id is a hash of the canonical config, so the same question asked
twice is answered once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from rl_scaling.config.algorithms import A2CConfig, PPOConfig
from rl_scaling.config.checks import (
    ConfigError,
    added_later,
    as_declared,
    require,
    require_fraction,
    require_positive,
)
from rl_scaling.records import Measure

__all__ = [
    "SCHEMA_VERSION",
    "A2CConfig",
    "AdaptiveBatchConfig",
    "AdaptiveConfig",
    "AgentConfig",
    "AtariConfig",
    "ConfigError",
    "EnvironmentConfig",
    "GymnasiumConfig",
    "NoiseScaleConfig",
    "PPOConfig",
    "RunConfig",
    "StorableConfig",
    "added_later",
    "as_declared",
    "rate_ratio",
    "require",
    "require_fraction",
    "require_positive",
    "run_config_from_dict",
    "run_id_of",
    "to_dict",
]

# 2: identities say how a run counts; runs of losses.
SCHEMA_VERSION = 2


class StorableConfig(Protocol):
    """What the store asks of the description of a run, whatever its domain: a frozen dataclass with these as well."""

    @property
    def task(self) -> str:
        """What is learned and how, without batch size, seed and what is tuned: runs of one task are compared."""
        ...

    @property
    def batch_size(self) -> int:
        """Frames or examples per update."""
        ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def setting(self) -> str:
        """What is tuned beside the learning rate, such as "momentum=0.9"; empty where nothing is."""
        ...

    @property
    def seed(self) -> int: ...

    @property
    def measure(self) -> Measure:
        """What the run counts and what its goals are about."""
        ...

    @property
    def run_id(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class AtariConfig:
    """One Atari game, many copies of it at once.

    Attributes:
        game: the game's name as ale-py spells it in its environment ids ("Breakout", "SpaceInvaders").
        num_envs: copies that are stepped together.
        frame_skip: emulator frames per agent step; all other counts of frames are agent steps.
        sticky_action_probability: chance that the emulator repeats the previous action.
        max_start_steps: each environment begins after a random number of random steps, at most this many.
        life_loss_terminates: a lost life ends the return (the game goes on), as in the Baselines.
    """

    kind: ClassVar[str] = "atari"
    game: str
    num_envs: int = 16
    frame_skip: int = 4
    sticky_action_probability: float = 0.0
    max_start_steps: int = 500
    life_loss_terminates: bool = True

    def __post_init__(self) -> None:
        as_declared(self)
        require_positive(self, "num_envs", "frame_skip")
        require_fraction(self, "sticky_action_probability")
        require(self.max_start_steps >= 0, f"max_start_steps is {self.max_start_steps}: give 0 or more")

    @property
    def name(self) -> str:
        return self.game


@dataclass(frozen=True, kw_only=True)
class GymnasiumConfig:
    """Any environment that `gymnasium.make_vec` knows, with a discrete action space."""

    kind: ClassVar[str] = "gymnasium"
    env_id: str
    num_envs: int = 16

    def __post_init__(self) -> None:
        as_declared(self)
        require_positive(self, "num_envs")

    @property
    def name(self) -> str:
        return self.env_id


@dataclass(frozen=True, kw_only=True)
class NoiseScaleConfig:
    """When and how the gradient noise scale is measured.

    Attributes:
        every_updates: one update in this many is measured; 0 turns measuring off.
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

    def __post_init__(self) -> None:
        as_declared(self)
        require(self.every_updates >= 0, f"every_updates is {self.every_updates}: give 0 (off) or more")
        require(self.groups >= 2, f"groups is {self.groups}: the noise scale needs 2 groups or more")
        require_positive(self, "window_measurements")
        require(self.frame_gradients >= 0, f"frame_gradients is {self.frame_gradients}: give 0 (none) or more")


@dataclass(frozen=True, kw_only=True)
class AdaptiveConfig:
    """A batch size that follows the noise scale, B = sqrt(r B_simple) (McCandlish et al. 2018, D.3, D.6).

    Attributes:
        exchange_rate: r, the price of an update in frames or examples: so many more are well spent to save one update.
        change_every_updates: the batch changes at most once in so many updates.
        tolerance: factor by which the batch must be off before it is changed, so that it does not flap.
        rate_turn: B* of A.3 in frames or examples; the learning rate follows the batch size by it.
        rate_power: alpha of A.3; 0 keeps the learning rate.
    """

    exchange_rate: float
    change_every_updates: int = 100
    tolerance: float = 1.25
    rate_turn: float = 1000.0
    rate_power: float = 0.5

    def __post_init__(self) -> None:
        as_declared(self)
        require_positive(self, "exchange_rate", "change_every_updates", "rate_turn")
        require(1 <= self.tolerance < math.inf, f"tolerance is {self.tolerance}: give a factor of 1 or more")
        require_fraction(self, "rate_power")

    @property
    def setting(self) -> str:
        """How its runs are told apart: r, and what differs from the defaults."""
        others = (f for f in dataclasses.fields(self) if f.default is not dataclasses.MISSING)
        changed = [f"{f.name}={value:g}" for f in others if (value := getattr(self, f.name)) != f.default]
        return " ".join([f"adaptive r={self.exchange_rate:g}", *changed])

    def rate_factor(self, batch_size: float, reference: float) -> float:
        """`rate_ratio` by this rate_turn and rate_power."""
        return rate_ratio(batch_size, reference, turn=self.rate_turn, power=self.rate_power)


@dataclass(frozen=True, kw_only=True)
class AdaptiveBatchConfig(AdaptiveConfig):
    """An adaptive batch of frames: environments are added and retired in groups while training goes on.

    Attributes:
        min_envs, max_envs: bounds of the number of environments.
        group_envs: environments that are added or retired together.
    """

    min_envs: int = 8
    max_envs: int = 256
    group_envs: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "group_envs")
        require(2 <= self.min_envs <= self.max_envs, "give min_envs of 2 or more, and max_envs not below it")
        for name in ("min_envs", "max_envs"):
            value = getattr(self, name)
            require(value % self.group_envs == 0, f"{name} is {value}: give a multiple of group_envs={self.group_envs}")


def rate_ratio(batch_size: float, reference: float, *, turn: float, power: float) -> float:
    """Learning rate at a batch size over that at a reference: eq. A.3 of McCandlish et al. 2018 without its maximum.

    >>> rate_ratio(1000, 250, turn=1000, power=1)
    2.5
    """
    return ((1 + turn / reference) / (1 + turn / batch_size)) ** power


EnvironmentConfig = AtariConfig | GymnasiumConfig
AgentConfig = A2CConfig | PPOConfig

_BY_KIND: dict[str, type] = {c.kind: c for c in (AtariConfig, GymnasiumConfig, A2CConfig, PPOConfig)}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run: one agent, on copies of one environment, for a number of frames.

    Attributes:
        frames: frames to train for, counted as the agent sees them (one per environment step).
        record_every_frames: frames between two records.
        adaptive: changes the number of environments while training; the environment's own is where it begins.
    """

    environment: EnvironmentConfig
    agent: AgentConfig
    noise_scale: NoiseScaleConfig = field(default_factory=NoiseScaleConfig)
    frames: int = 10_000_000
    seed: int = 0
    record_every_frames: int = 2_000
    adaptive: AdaptiveBatchConfig | None = field(default=None, metadata={"added_later": True})

    def __post_init__(self) -> None:
        as_declared(self)
        require_positive(self, "frames", "record_every_frames")
        require(self.seed >= 0, f"seed is {self.seed}: give 0 or more")
        require(
            self.noise_scale.every_updates == 0 or self.environment.num_envs >= 2,
            "one environment gives no groups to compare: give num_envs 2 or more, or turn the noise scale off",
        )
        self._check_minibatches()
        if self.adaptive is not None:
            self._check_adaptive(self.adaptive)

    def _check_minibatches(self) -> None:
        num_envs, agent = self.environment.num_envs, self.agent
        frames = agent.batch_size(num_envs)  # refuses minibatches that do not divide the rollout
        if self.noise_scale.every_updates and isinstance(agent, PPOConfig) and agent.minibatch_of == "environments":
            most = max(m for m in range(1, num_envs // 2 + 1) if num_envs % m == 0)
            require(
                frames > agent.rollout_steps,
                f"one environment in each of {agent.minibatches} minibatches gives no groups to compare: give"
                f" minibatches {most} or num_envs {2 * agent.minibatches}, or turn the noise scale off",
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
    def task(self) -> str:
        """What is learned and how, without batch size, learning rate and seed: runs of one task are compared.

        Settings that differ from their defaults are spelled out, so that two variants never share a front.
        """
        parts = [self.environment.name, self.agent.kind]
        for owner, left_out in ((self.environment, {"num_envs"}), (self.agent, {"learning_rate"})):
            for f in dataclasses.fields(owner):
                value = getattr(owner, f.name)
                if f.name not in left_out and f.default is not dataclasses.MISSING and value != f.default:
                    parts.append(f"{f.name}={value}")
        if self.agent.annealed:
            parts.append(f"frames={self.frames}")  # the schedule is stretched over them
        return " ".join(parts)

    @property
    def learning_rate(self) -> float:
        """The rate at the start."""
        return self.agent.learning_rate

    @property
    def setting(self) -> str:
        """How an adaptive batch is steered; else nothing but the learning rate is tuned."""
        return "" if self.adaptive is None else self.adaptive.setting

    @property
    def measure(self) -> Measure:
        """Frames, and goals of the score."""
        return Measure("frames", "score")

    @property
    def run_id(self) -> str:
        """See `run_id_of`."""
        return run_id_of(self)


def run_id_of(config: Any) -> str:
    """Twelve hexadecimal digits that follow from the canonical config alone."""
    text = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain data; `kind` tells which class a nested config is, `added_later` may leave a field out."""
    plain = {"kind": config.kind} if hasattr(config, "kind") else {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("added_later") and value == f.default:
            continue
        plain[f.name] = to_dict(value) if dataclasses.is_dataclass(value) else value
    return plain


def run_config_from_dict(plain: dict[str, Any]) -> RunConfig:
    """The inverse of `to_dict` for a run.

    Raises:
        ConfigError: a kind or field that this version does not know.
    """
    try:
        parts = dict(plain)
        parts["noise_scale"] = NoiseScaleConfig(**parts["noise_scale"])
        if parts.get("adaptive") is not None:
            parts["adaptive"] = AdaptiveBatchConfig(**parts["adaptive"])
        for name in ("environment", "agent"):
            fields = dict(parts[name])
            kind = fields.pop("kind")
            require(kind in _BY_KIND, f"unknown {name} kind {kind!r}: it needs a newer rl-scaling")
            parts[name] = _BY_KIND[kind](**fields)
        return RunConfig(**parts)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"not a run's config: {error}") from error
