"""What calibration and the temperature experiment are asked, and what calibration should answer: the one place of it.

The command line takes its options from here, so nothing in this module needs torch or scipy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rl_scaling.config import ConfigError, require, require_positive

What = Literal["learning-rate", "batch-size", "both"]
WHATS: tuple[What, ...] = ("learning-rate", "batch-size", "both")
Row = Mapping[str, float | str]

# Where more series are unresolved, the mean over the resolved ones is one of a selection: those in which chance made
# |G|^2 large and B_simple small.
MOST_UNRESOLVED = 0.01
LARGEST_BIAS = 0.02
LOWEST_COVERAGE, HIGHEST_COVERAGE = 0.93, 0.97


@dataclass(frozen=True)
class CalibrationPlan:
    """What is simulated.

    Attributes:
        repeats: series in each setting.
        measurements: in each series.
        seed: of all randomness.
        batch_over_noise_scale: B / B_simple; all of them use the same noise.
        groups: k.
        correlations: of frames of one environment.
        problems: names of `calibration_problems.PROBLEMS`; empty: all of them.

    Raises:
        ValueError: a number out of range, or an unknown problem.
    """

    repeats: int = 4_000
    measurements: int = 400
    seed: int = 0
    batch_over_noise_scale: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    groups: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    correlations: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9)
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.repeats < 2 or self.measurements < 2:
            raise ValueError("repeats and measurements must be 2 or more")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: give 0 or more")
        if min(self.groups) < 2 or min(self.batch_over_noise_scale) <= 0:
            raise ValueError("groups must be 2 or more and batch sizes positive")
        if not 0 <= min(self.correlations) <= max(self.correlations) < 1:
            raise ValueError("correlations must be 0 or more and below 1")
        if self.problems:
            from rl_scaling.validation.calibration_problems import PROBLEMS  # with scipy

            unknown = set(self.problems) - PROBLEMS.keys()
            if unknown:
                raise ValueError(f"no problem {', '.join(sorted(unknown))}: there are {', '.join(PROBLEMS)}")


FAST_CALIBRATION = CalibrationPlan(repeats=200, groups=(2, 8, 64), correlations=(0.0, 0.9))


def is_resolved(row: Row) -> bool:
    """Fewer than 1 in 100 series are unresolved."""
    return float(row["unresolved"]) < MOST_UNRESOLVED


def bias_is_met(row: Row) -> bool:
    """The mean is within 2 % of the truth."""
    return abs(float(row["bias"])) < LARGEST_BIAS


def coverage_is_met(row: Row) -> bool:
    """93 to 97 % of the intervals contain the truth."""
    return LOWEST_COVERAGE <= float(row["coverage"]) <= HIGHEST_COVERAGE


@dataclass(frozen=True)
class TemperatureSettings:
    """The settings of the temperature experiment.

    Random labels and weight decay keep the network from fitting every example: where it can, tr(Sigma) and |G|^2 vanish
    together, the loss never becomes flat and there is no equilibrium to speak of.

    Attributes:
        factor: Factor by which T is lowered in the middle phase, above 1.
        learning_rate: Rate of plain SGD in the outer phases; small enough that noise, not curvature, limits it.
        batch_size: Examples per update in the outer phases, a multiple of `groups`.
        groups: Groups of an update, for the noise scale.
        hidden: Units of the network's one hidden layer.
        label_noise: Share of the labels drawn at random, so that the network cannot fit all of them.
        weight_decay: Coefficient w of w |theta|^2 / 2 in the loss.
        pretrain_updates: Updates before the measuring begins.
        phase_updates: Updates before, during and after; the first half of each is left to settle.
        window: Time constant of the running estimate, in updates.
        seed: Seed of weights, labels and batches.

    Raises:
        ConfigError: a number out of range.
    """

    factor: float = 16.0
    learning_rate: float = 0.2
    batch_size: int = 64
    groups: int = 8
    hidden: int = 16
    label_noise: float = 0.3
    weight_decay: float = 0.01
    pretrain_updates: int = 6_000
    phase_updates: int = 10_000
    window: float = 500.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(1 < self.factor < math.inf, f"factor is {self.factor}: give a number above 1, such as 16")
        require_positive(self, "learning_rate", "window", "hidden")
        if self.groups < 2 or self.batch_size < 1 or self.batch_size % self.groups:
            raise ConfigError(
                f"batch size {self.batch_size} does not divide into {self.groups} groups of 1 or more each"
            )
        if not (0 <= self.label_noise <= 1 and 0 <= self.weight_decay < math.inf):
            raise ConfigError("give a label noise between 0 and 1 and a weight decay of 0 or more")
        if self.phase_updates < 8 or self.pretrain_updates < 0:
            raise ConfigError(f"{self.phase_updates} updates per phase are too few: give 8 or more")

    def phases(self, what: What) -> tuple[tuple[str, float, int], ...]:
        """(name, learning rate, batch size) of the three phases; batch sizes are whole groups.

        >>> TemperatureSettings(factor=16).phases("both")
        (('before', 0.2, 64), ('during', 0.05, 256), ('after', 0.2, 64))
        """
        rate_factor = {"learning-rate": self.factor, "batch-size": 1.0, "both": math.sqrt(self.factor)}[what]
        group_size = round(self.batch_size / self.groups * self.factor / rate_factor)
        outer = (self.learning_rate, self.batch_size)
        return (
            ("before", *outer),
            ("during", self.learning_rate / rate_factor, group_size * self.groups),
            ("after", *outer),
        )
