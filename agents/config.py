"""The settings of the algorithms, and what a sweep has to know of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from rl_scaling.config import (
    Config,
    ConfigError,
    added_later,
    neighbours,
    require,
    require_fraction,
    require_one_of,
    require_positive,
)

Network = Literal["nature", "small", "minatar", "mlp"]
Schedule = Literal["constant", "linear"]
Scaling = Literal["count", "minibatch", "ewma"]


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
    def as_algorithm(self) -> AlgorithmConfig:
        """The settings of the algorithm that learns by these: of another one where a setting asks for it."""
        return self

    @property
    def at_defaults(self) -> AlgorithmConfig:
        """The defaults of the algorithm, which are known to work with `reference_num_envs`."""
        return type(self)()  # pyright: ignore[reportCallIssue]  # every algorithm's settings have defaults

    @property
    def rate_rule(self) -> tuple[float, float]:
        """B* in frames and alpha of A.3, by which the learning rate follows the batch size."""
        return self.rate_turn, self.rate_power

    @property
    def frame_uses(self) -> int:
        """How often every frame is used, in updates as they are counted."""
        return 1

    @property
    def updates_per_rollout(self) -> int:
        """Sequential steps of learning, as they are counted in records and fronts."""
        return 1

    def batch_size(self, num_envs: int) -> int:
        """Frames per update.

        Raises:
            ConfigError: this many environments make no whole batches.
        """
        return num_envs * self.rollout_steps * self.frame_uses // self.updates_per_rollout

    def frames_at_once(self, num_envs: int) -> int:
        """Frames that a gradient is taken of in one pass, which memory must hold."""
        return self.batch_size(num_envs)

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

    What grows with the number of environments, and so what the batch is, is told by `scaling`. With "count" the
    minibatches grow: an update is one step of Adam, and the batch is a minibatch. With "minibatch" (Beukman et al.
    2026) their number grows: an update is an outer step, all that is learned from one rollout, and the batch is the
    rollout. Adam's steps then follow from the frames (epochs x frames / minibatch_frames, whatever the number of
    environments), so they could not be traded against frames; outer steps can.

    Attributes:
        minibatches: parts of equal size that a rollout is dealt into, one step of Adam each.
        minibatch_of: "frames" shuffles the rollout's frames, "environments" keeps those of one environment together.
        scaling: what stays as the number of environments grows: "count" the number of minibatches (the batch is one of
            them), "minibatch" their size (the batch is the rollout, an update all steps on it), "ewma" is the algorithm
            ppo-ewma.
        minibatch_frames: with "minibatch" scaling, frames in a minibatch.
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
    scaling: Scaling = added_later("count")
    minibatch_frames: int = added_later(256)
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
        require_positive(self, "minibatches", "minibatch_frames", "epochs", "clip_range", "adam_epsilon")
        require_fraction(self, "gae_lambda")
        require(self.value_clip_range >= 0, f"value_clip_range is {self.value_clip_range}: give 0 (none) or more")
        require_one_of(self, "minibatch_of", "frames", "environments")
        require_one_of(self, "scaling", "count", "minibatch", "ewma")
        require_one_of(self, "clip_range_schedule", "constant", "linear")
        unused = "minibatches" if self.keeps_minibatch else "minibatch_frames"
        require(
            getattr(self, unused) == type(self).__dataclass_fields__[unused].default,
            f"{unused} says nothing with scaling {self.scaling}: leave it out",
        )
        if self.keeps_minibatch and self.minibatch_of == "environments":
            require(
                self.minibatch_frames % self.rollout_steps == 0,
                f"minibatch_frames is {self.minibatch_frames}: whole environments need a multiple of rollout_steps="
                f"{self.rollout_steps}",
            )

    @property
    def as_algorithm(self) -> AlgorithmConfig:
        """PPO-EWMA, with its own settings at their defaults, where `scaling` asks for it."""
        if self.scaling != "ewma" or isinstance(self, PPOEWMAConfig):
            return self
        return PPOEWMAConfig(**{f.name: getattr(self, f.name) for f in fields(self)})

    @property
    def at_defaults(self) -> AlgorithmConfig:
        """See `AlgorithmConfig.at_defaults`; of the same family."""
        return type(self)(scaling=self.scaling)

    @property
    def rate_rule(self) -> tuple[float, float]:
        """See `AlgorithmConfig.rate_rule`: the rate stays where the minibatches do."""
        return self.rate_turn, 0.0 if self.keeps_minibatch else self.rate_power

    @property
    def keeps_minibatch(self) -> bool:
        """Whether the minibatches stay as they are while their number grows with the environments."""
        return self.scaling == "minibatch"

    @property
    def annealed(self) -> bool:
        """Whether anything is stretched over the run's length."""
        return "linear" in (self.learning_rate_schedule, self.clip_range_schedule)

    @property
    def frame_uses(self) -> int:
        """See `AlgorithmConfig.frame_uses`; an outer step has its frames to itself, however many epochs it takes."""
        return 1 if self.keeps_minibatch else self.epochs

    @property
    def updates_per_rollout(self) -> int:
        """See `AlgorithmConfig.updates_per_rollout`: steps of Adam, or one outer step."""
        return 1 if self.keeps_minibatch else self.epochs * self.minibatches

    def minibatches_of(self, num_envs: int) -> int:
        """Minibatches that a rollout of so many environments is dealt into."""
        if self.keeps_minibatch:
            return num_envs * self.rollout_steps // self.minibatch_frames
        return self.minibatches

    def frames_at_once(self, num_envs: int) -> int:
        """See `AlgorithmConfig.frames_at_once`: a minibatch."""
        return num_envs * self.rollout_steps // self.minibatches_of(num_envs)

    def batch_size(self, num_envs: int) -> int:
        """Frames per update: in a minibatch, or of an outer step in the rollout.

        Raises:
            ConfigError: the minibatches do not divide the rollout.
        """
        if self.keeps_minibatch:
            self._require_whole_minibatches(num_envs)
            return super().batch_size(num_envs)
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

    def _require_whole_minibatches(self, num_envs: int) -> None:
        size, steps = self.minibatch_frames, self.rollout_steps
        step = size // math.gcd(size, steps)
        require(
            num_envs % step == 0,
            f"{num_envs} environments of {steps} steps do not divide into minibatches of {size} frames: give num_envs"
            f" {neighbours(range(step, num_envs + step + 1, step), num_envs)}, or another minibatch_frames",
        )

    def require_groups(self, num_envs: int) -> None:
        """See `AlgorithmConfig.require_groups`; a minibatch that is the batch needs two environments as well."""
        super().require_groups(num_envs)
        if self.minibatch_of == "environments" and not self.keeps_minibatch:
            most = max(m for m in range(1, num_envs // 2 + 1) if num_envs % m == 0)
            require(
                num_envs > self.minibatches,
                f"one environment in each of {self.minibatches} minibatches gives no groups to compare: give"
                f" minibatches {most} or num_envs {2 * self.minibatches}, or turn the noise scale off",
            )


@dataclass(frozen=True, kw_only=True)
class PPOEWMAConfig(PPOConfig):
    """PPO whose proximal policy is an average of weights, so that it can keep its learning curve at any batch size.

    PPO-EWMA (Hilton et al. 2021, arXiv 2110.00641). The number of minibatches stays, as in PPO, and the batch is one of
    them. When it is c times smaller than `reference_batch`, the centre of mass 1/(1 - decay) - 1 of both averages is c
    times larger, which is done here, and Adam's rate should be sqrt(c) times smaller, which is what the grid of a sweep
    and `rl-scaling translate` do: `learning_rate` is Adam's, at the run's own batch. Adam's own coefficients stay.

    Attributes:
        scaling: "ewma" and nothing else.
        reference_batch: frames in a minibatch, at which the two decays hold as they are given.
        proximal_decay: decay per step of Adam of the average of weights that is the proximal policy (0.889 as
            published: a centre of mass of 8 steps).
        advantage_decay: decay per rollout of the moments by which advantages are normalised.
    """

    kind: ClassVar[str] = "ppo-ewma"
    rate_turn: ClassVar[float] = 1e12  # so far away that A.3 is the square root of the batch size

    scaling: Scaling = added_later("ewma")
    reference_batch: int = 256
    proximal_decay: float = 0.889
    advantage_decay: float = 0.75

    def check(self) -> None:
        """See `Config.check`."""
        require(self.scaling == "ewma", "ppo-ewma scales by ewma: for count and minibatch give the algorithm ppo")
        super().check()
        require_positive(self, "reference_batch")
        for name in ("proximal_decay", "advantage_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} is {value}: give a number from 0 to below 1")

    def decay_at(self, decay: float, num_envs: int) -> float:
        """A decay that holds at `reference_batch`, at the batch size of so many environments.

        >>> config = PPOEWMAConfig()
        >>> round(config.decay_at(8 / 9, num_envs=8), 6), round(config.decay_at(8 / 9, num_envs=2), 6)
        (0.888889, 0.969697)
        """
        centre = decay / (1 - decay) * self.reference_batch / self.batch_size(num_envs)
        return centre / (1 + centre)
