"""The settings of the algorithms, and what a sweep has to know of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from rl_scaling.config import (
    Config,
    ConfigError,
    neighbours,
    require,
    require_fraction,
    require_one_of,
    require_positive,
)

Network = Literal["nature", "small", "minatar", "mlp"]
Schedule = Literal["constant", "linear"]


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig(Config):
    """The settings that all actor-critic algorithms have; an algorithm's own config inherits from it.

    Attributes:
        network: "nature" (32-64-64 convolutions, 512 units), "small" (16-32, 256 units), "minatar" (16 filters of
            3 x 3, 128 units; what the command line takes for MinAtar) or "mlp" (64-64).
        rollout_steps: steps of every environment per rollout.
        learning_rate: the rate at the start; "linear" takes it to 0 over the run.
        learning_rate_schedule: "constant", or "linear" down to 0.
        discount: gamma of the returns.
        entropy_coefficient: weight of the entropy in the loss.
        value_coefficient: weight of the value's squared error in the loss.
        max_grad_norm: the gradient is clipped to this norm, after the noise scale is taken.

    Class attributes, for sweeps:
        kind: the algorithm's name.
        reference_num_envs: a number of environments at which the default settings are known to work.
        rate_turn, rate_power: B* (in frames) and alpha of A.3 (McCandlish et al. 2018): 0.5 to 1 for RMSProp and Adam.
        num_envs_of_scale: numbers of environments of a sweep of each size.
        optimizer_states: numbers that the optimiser keeps for each weight.
    """

    kind: ClassVar[str]
    reference_num_envs: ClassVar[int]
    rate_turn: ClassVar[float] = 1000.0
    rate_power: ClassVar[float] = 0.5
    num_envs_of_scale: ClassVar[Mapping[str, tuple[int, ...]]]
    optimizer_states: ClassVar[int] = 2

    network: Network = "nature"
    rollout_steps: int
    learning_rate: float
    learning_rate_schedule: Schedule = "constant"
    discount: float = 0.99
    entropy_coefficient: float = 0.01
    value_coefficient: float = 0.5
    max_grad_norm: float = 0.5

    def check(self) -> None:
        """See `Config.check`."""
        require_positive(self, "rollout_steps", "learning_rate", "max_grad_norm")
        require_fraction(self, "discount")
        for name in ("entropy_coefficient", "value_coefficient"):
            require(getattr(self, name) >= 0, f"{name} is negative: give 0 or more")
        require_one_of(self, "network", "nature", "small", "minatar", "mlp")
        require_one_of(self, "learning_rate_schedule", "constant", "linear")

    @property
    def annealed(self) -> bool:
        """Whether anything is stretched over the run's length."""
        return self.learning_rate_schedule != "constant"

    @property
    def frame_uses(self) -> int:
        """How often every frame is used."""
        return 1

    @property
    def updates_per_rollout(self) -> int:
        return 1

    def batch_size(self, num_envs: int) -> int:
        """Frames per update.

        Raises:
            ConfigError: this many environments make no whole batches.
        """
        return num_envs * self.rollout_steps * self.frame_uses // self.updates_per_rollout

    def require_groups(self, num_envs: int) -> None:
        """Refuse numbers of environments whose updates leave no groups of whole environments to compare.

        Raises:
            ConfigError: the noise scale of such updates cannot be measured.
        """
        require(
            num_envs >= 2,
            "one environment gives no groups to compare: give num_envs 2 or more, or turn the noise scale off",
        )

    def num_envs_for(self, batch_size: int) -> int:
        """The number of environments whose batches have this many frames.

        Raises:
            ConfigError: no number of environments has.
        """
        each = self.rollout_steps * self.frame_uses / self.updates_per_rollout
        num_envs = round(batch_size / each)
        if num_envs < 1 or self.batch_size(num_envs) != batch_size:
            raise ConfigError(
                f"no number of environments has batches of {batch_size} frames: try multiples of {each:g}"
            )
        return num_envs


@dataclass(frozen=True, kw_only=True)
class A2CConfig(AlgorithmConfig):
    """Advantage actor-critic with RMSProp (McCandlish et al. 2018, A.4.2; defaults of the Stable-Baselines3 zoo).

    Attributes:
        rollout_steps: steps of every environment per update; the batch is num_envs times this, in frames.
        rmsprop_decay: decay of the mean of squared gradients.
        rmsprop_epsilon: added to the root, or inside it.
        rmsprop_epsilon_inside_root: TensorFlow's convention, g / sqrt(v + eps) with v starting at 1;
            otherwise torch's, g / (sqrt(v) + eps) with v starting at 0.
    """

    kind: ClassVar[str] = "a2c"
    reference_num_envs: ClassVar[int] = 16
    # "paper": batches from 20 to 20,480 frames.
    num_envs_of_scale: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "smoke": (4, 12, 36),
        "plain": (4, 8, 16, 32, 64),
        "overnight": (4, 8, 24, 72, 200),
        "paper": (4, 16, 64, 256, 1024, 4096),
    }
    optimizer_states: ClassVar[int] = 1

    rollout_steps: int = 5
    learning_rate: float = 7e-4
    value_coefficient: float = 0.25
    rmsprop_decay: float = 0.99
    rmsprop_epsilon: float = 1e-5
    rmsprop_epsilon_inside_root: bool = True

    def check(self) -> None:
        """See `Config.check`."""
        super().check()
        require_positive(self, "rmsprop_epsilon")
        require_fraction(self, "rmsprop_decay")


@dataclass(frozen=True, kw_only=True)
class PPOConfig(AlgorithmConfig):
    """Proximal policy optimisation (Schulman et al. 2017; defaults of the Stable-Baselines3 zoo and CleanRL for Atari).

    Attributes:
        minibatches: parts of equal size that a rollout is dealt into, one update each; the batch is num_envs times
            rollout_steps over this, in frames.
        minibatch_of: "frames" shuffles the rollout's frames, "environments" keeps those of one environment together.
        epochs: how often every frame is used.
        gae_lambda: how far generalised advantages look ahead: 0 one step, 1 to the end of the rollout.
        clip_range: how far the ratio of new to old policy may move from 1; "linear" takes it to 0 over the run.
        clip_range_schedule: "constant", or "linear" down to 0.
        value_clip_range: how far a value may move from the old one in the loss; 0: as far as it likes.
        normalize_advantages: to mean 0 and deviation 1 in every minibatch.
        adam_epsilon: added to the root of Adam's second moment.
    """

    kind: ClassVar[str] = "ppo"
    reference_num_envs: ClassVar[int] = 8
    # "paper": batches (a quarter of the rollout) from 64 to 20,480 frames.
    num_envs_of_scale: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "smoke": (2, 4, 8),
        "plain": (4, 8, 16, 32, 64),
        "overnight": (2, 4, 8, 24, 72),
        "paper": (2, 8, 32, 128, 640),
    }

    rollout_steps: int = 128
    minibatches: int = 4
    minibatch_of: Literal["frames", "environments"] = "frames"
    epochs: int = 4
    learning_rate: float = 2.5e-4
    gae_lambda: float = 0.95
    clip_range: float = 0.1
    clip_range_schedule: Schedule = "constant"
    value_clip_range: float = 0.0
    normalize_advantages: bool = True
    adam_epsilon: float = 1e-5

    def check(self) -> None:
        """See `Config.check`."""
        super().check()
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
    def frame_uses(self) -> int:
        """How often every frame is used."""
        return self.epochs

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
        return super().batch_size(num_envs)

    def require_groups(self, num_envs: int) -> None:
        """See `AlgorithmConfig.require_groups`; a minibatch needs two environments as well."""
        super().require_groups(num_envs)
        if self.minibatch_of == "environments":
            most = max(m for m in range(1, num_envs // 2 + 1) if num_envs % m == 0)
            require(
                num_envs > self.minibatches,
                f"one environment in each of {self.minibatches} minibatches gives no groups to compare: give"
                f" minibatches {most} or num_envs {2 * self.minibatches}, or turn the noise scale off",
            )
