"""What is asked of the noisy quadratic model: a run for the store, and what commands and library take by default.

It imports no array library, so that a command line can read its options here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from rl_scaling.config import RunDescription, added_later, require, require_fraction, require_positive, variant_of
from rl_scaling.records import Identity

OptimizerName = Literal["sgd", "momentum", "nesterov", "ema", "momentum-ema", "nesterov-ema"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
BATCH_SIZES = tuple(4.0**k for k in range(1, 11))
"""Those of the figures of Zhang et al. 2019."""
CONFIDENCE = 0.95
_VARIED = {"optimizer", "batch_size", "learning_rate", "coefficient", "averaging", "updates", "seed"}


@dataclass(frozen=True)
class Setting:
    """The problem's size and where training is to arrive; the defaults are those of Zhang et al. 2019."""

    dimension: int = 10_000
    """Directions of the model."""
    target: float = 0.01
    """Risk that stands for the measured goal; the model starts at about 4.9."""


@dataclass(frozen=True, kw_only=True)
class NQMConfig(RunDescription):
    """One optimiser with constant rates on the noisy quadratic model (Zhang et al. 2019, section 3).

    The eigenvalues are h_i = i^-spectrum_exponent, the noise of one example has covariance
    noise_scale * h_i^noise_exponent, and the start is N(0, 1) in every direction.

    Attributes:
        optimizer: "sgd", "momentum" (heavy ball), "nesterov", "ema" (an average of SGD's iterates), "momentum-ema" or
            "nesterov-ema" (an average of a momentum's iterates).
        power: p of the preconditioner H^-p.
        batch_size: examples per update.
        learning_rate: alpha.
        coefficient: beta of the momentum, or gamma of the average for "ema"; 0 for SGD.
        averaging: gamma of the average of a momentum's iterates.
        updates: length of the run.
        seed: changes nothing, for all is exact; it keeps apart runs that are meant as repetitions.

    Raises:
        ConfigError: a value out of its range.
    """

    domain: ClassVar[str] = "nqm"
    kind: ClassVar[str] = "nqm"
    optimizer: str
    power: float = 0.0
    batch_size: int
    learning_rate: float
    coefficient: float = 0.0
    updates: int
    dimension: int = Setting.dimension
    spectrum_exponent: float = 1.0
    noise_exponent: float = 1.0
    noise_scale: float = 1.0
    seed: int = 0
    averaging: float = added_later(0.0)

    def check(self) -> None:
        require(self.optimizer in OPTIMIZERS, f"no optimizer {self.optimizer!r}: {', '.join(OPTIMIZERS)}")
        require_positive(self, "batch_size", "learning_rate", "updates", "dimension", "noise_scale")
        require_fraction(self, "power")
        for name in ("coefficient", "averaging"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} is {value}: give a number from 0 to below 1")
        require(
            not self.averaging or self.optimizer in ("momentum-ema", "nesterov-ema"),
            f"{self.optimizer} takes no averaging: choose momentum-ema or nesterov-ema",
        )

    @property
    def length(self) -> int:
        """Examples."""
        return self.updates * self.batch_size

    @property
    def identity(self) -> Identity:
        """The optimiser and the model; what is varied makes no task of its own."""
        return Identity(
            domain=self.domain,
            problem="NQM",
            algorithm=self.optimizer,
            variant=variant_of(f"{name}={value:g}" for name, value in self._model_settings()),
            unit="examples",
            quantity="loss",
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            setting=self.setting,
            seed=self.seed,
        )

    def _model_settings(self) -> Iterator[tuple[str, float]]:
        for f in dataclasses.fields(self):
            if f.name not in _VARIED and (value := getattr(self, f.name)) != f.default:
                yield f.name, value

    @property
    def setting(self) -> str:
        """The coefficients of momentum and averaging, in full."""
        if self.optimizer == "sgd":
            return ""
        own = f"{'averaging' if self.optimizer == 'ema' else 'momentum'}={self.coefficient!r}"
        return own + (f" averaging={self.averaging!r}" if self.optimizer.endswith("-ema") else "")
