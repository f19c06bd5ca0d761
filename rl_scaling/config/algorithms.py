"""The algorithms and their settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rl_scaling.config.checks import (
    ConfigError,
    as_declared,
    neighbours,
    require,
    require_fraction,
    require_one_of,
    require_positive,
)


def require_actor_critic(owner: Any) -> None:
    """What is asked of the settings that all actor-critic agents have."""
    require_positive(owner, "rollout_steps", "learning_rate", "max_grad_norm")
    require_fraction(owner, "discount")
    for name in ("entropy_coefficient", "value_coefficient"):
        require(getattr(owner, name) >= 0, f"{name} is negative: give 0 or more")
    require_one_of(owner, "network", "nature", "small", "mlp")
    require_one_of(owner, "learning_rate_schedule", "constant", "linear")


@dataclass(frozen=True, kw_only=True)
class A2CConfig:
    """Advantage actor-critic with RMSProp (McCandlish et al. 2018, A.4.2; defaults of the Stable-Baselines3 zoo).

    Attributes:
        network: "nature" (32-64-64 convolutions, 512 units), "small" (16-32, 256 units) or "mlp" (64-64).
        rollout_steps: steps of every environment per update; the batch is num_envs times this, in frames.
        learning_rate: the rate at the start; "linear" takes it to 0 over the run.
        rmsprop_epsilon_inside_root: TensorFlow's convention, g / sqrt(v + eps) with v starting at 1;
            otherwise torch's, g / (sqrt(v) + eps) with v starting at 0.
        max_grad_norm: the gradient is clipped to this norm, after the noise scale is taken.
    """

    kind: ClassVar[str] = "a2c"
    network: Literal["nature", "small", "mlp"] = "nature"
    rollout_steps: int = 5
    learning_rate: float = 7e-4
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    discount: float = 0.99
    entropy_coefficient: float = 0.01
    value_coefficient: float = 0.25
    max_grad_norm: float = 0.5
    rmsprop_decay: float = 0.99
    rmsprop_epsilon: float = 1e-5
    rmsprop_epsilon_inside_root: bool = True

    def __post_init__(self) -> None:
        as_declared(self)
        require_actor_critic(self)
        require_positive(self, "rmsprop_epsilon")
        require_fraction(self, "rmsprop_decay")

    @property
    def annealed(self) -> bool:
        """Whether anything is stretched over the run's length."""
        return self.learning_rate_schedule != "constant"

    @property
    def epochs(self) -> int:
        """How often every frame is used."""
        return 1

    @property
    def updates_per_rollout(self) -> int:
        return 1

    def batch_size(self, num_envs: int) -> int:
        """Frames per update."""
        return num_envs * self.rollout_steps


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017; defaults of the Stable-Baselines3 zoo and CleanRL for Atari).

    Attributes:
        network: "nature" (32-64-64 convolutions, 512 units), "small" (16-32, 256 units) or "mlp" (64-64).
        rollout_steps: steps of every environment per rollout.
        minibatches: parts of equal size that a rollout is dealt into, one update each; the batch is num_envs times
            rollout_steps over this, in frames.
        minibatch_of: "frames" shuffles the rollout's frames, "environments" keeps those of one environment together.
        epochs: how often every frame is used.
        learning_rate: the rate at the start; "linear" takes it to 0 over the run.
        gae_lambda: how far generalised advantages look ahead: 0 one step, 1 to the end of the rollout.
        clip_range: how far the ratio of new to old policy may move from 1; "linear" takes it to 0 over the run.
        value_clip_range: how far a value may move from the old one in the loss; 0: as far as it likes.
        normalize_advantages: to mean 0 and deviation 1 in every minibatch.
        max_grad_norm: the gradient is clipped to this norm, after the noise scale is taken.
    """

    kind: ClassVar[str] = "ppo"
    network: Literal["nature", "small", "mlp"] = "nature"
    rollout_steps: int = 128
    minibatches: int = 4
    minibatch_of: Literal["frames", "environments"] = "frames"
    epochs: int = 4
    learning_rate: float = 2.5e-4
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.1
    clip_range_schedule: Literal["constant", "linear"] = "constant"
    value_clip_range: float = 0.0
    normalize_advantages: bool = True
    entropy_coefficient: float = 0.01
    value_coefficient: float = 0.5
    max_grad_norm: float = 0.5
    adam_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        as_declared(self)
        require_actor_critic(self)
        require_positive(self, "minibatches", "epochs", "clip_range", "adam_epsilon")
        require_fraction(self, "gae_lambda")
        require(self.value_clip_range >= 0, f"value_clip_range is {self.value_clip_range}: give 0 (none) or more")
        require_one_of(self, "minibatch_of", "frames", "environments")
        require_one_of(self, "clip_range_schedule", "constant", "linear")

    @property
    def annealed(self) -> bool:
        """Whether anything is stretched over the run's length."""
        return "linear" in (self.learning_rate_schedule, self.clip_range_schedule)

    @property
    def updates_per_rollout(self) -> int:
        return self.epochs * self.minibatches

    def batch_size(self, num_envs: int) -> int:
        """Frames per update: in a minibatch.

        Raises:
            ConfigError: the minibatches do not divide the rollout.
        """
        each = 1 if self.minibatch_of == "environments" else self.rollout_steps
        count = num_envs * each
        if count % self.minibatches:
            what = f"{num_envs} environments" + f" of {each} steps" * (self.minibatch_of == "frames")
            divisors = [m for m in range(1, count + 1) if count % m == 0]
            step = self.minibatches // math.gcd(self.minibatches, each)
            raise ConfigError(
                f"{what} do not divide into {self.minibatches} minibatches of {self.minibatch_of}: give minibatches"
                f" {neighbours(divisors, self.minibatches)}, or num_envs"
                f" {neighbours(range(step, num_envs + step + 1, step), num_envs)}"
            )
        return num_envs * self.rollout_steps // self.minibatches
