"""A run of the noisy quadratic model, for the store."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from rl_scaling.config import ConfigError, RunDescription, added_later, variant_of
from rl_scaling.records import Identity

OPTIMIZERS = ("sgd", "momentum", "nesterov", "ema", "momentum-ema", "nesterov-ema")
_VARIED = {"optimizer", "batch_size", "learning_rate", "coefficient", "averaging", "updates", "seed"}


@dataclass(frozen=True, kw_only=True)
class NQMConfig(RunDescription):
    """One optimiser with constant rates on the noisy quadratic model (Zhang et al. 2019, section 3).

    The eigenvalues are h_i = i^-spectrum_exponent, the noise of one example has covariance
    noise_scale * h_i^noise_exponent, and the start is N(0, 1) in every direction.

    Attributes:
        optimizer: "sgd", "momentum" (heavy ball), "nesterov" "ema" (an average of SGD's iterates),
            "momentum-ema" or "nesterov-ema" (one of a momentum's iterates).
        power: p of the preconditioner H^-p.
        batch_size: examples per update.
        learning_rate: alpha.
        coefficient: beta of the momentum, or gamma of the average for "ema"; 0 for SGD.
        averaging: gamma of the average of a momentum's iterates.
        updates: the run ends after these.
        seed: of nothing, for all is exact; it keeps apart runs that are meant to be repetitions.

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
    dimension: int = 10_000
    spectrum_exponent: float = 1.0
    noise_exponent: float = 1.0
    noise_scale: float = 1.0
    seed: int = 0
    averaging: float = added_later(0.0)

    def check(self) -> None:
        """See `Config.check`."""
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"no optimizer {self.optimizer!r}: {', '.join(OPTIMIZERS)}")
        for name in ("batch_size", "learning_rate", "updates", "dimension", "noise_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}: give a positive number")
        if not 0 <= self.power <= 1:
            raise ConfigError(f"power is {self.power}: give a number from 0 to 1")
        for name in ("coefficient", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number from 0 to below 1")
        if self.averaging and self.optimizer not in ("momentum-ema", "nesterov-ema"):
            raise ConfigError(f"{self.optimizer} takes no averaging: choose momentum-ema or nesterov-ema")

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
