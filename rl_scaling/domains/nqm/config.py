"""A run of the noisy quadratic model, for the store."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from rl_scaling.config import ConfigError, added_later, run_id_of
from rl_scaling.records import Measure

OPTIMIZERS = ("sgd", "momentum", "nesterov", "ema", "momentum-ema", "nesterov-ema")
_VARIED = {"optimizer", "batch_size", "learning_rate", "coefficient", "averaging", "updates", "seed"}


@dataclass(frozen=True, kw_only=True)
class NQMConfig:
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

    def __post_init__(self) -> None:
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
    def measure(self) -> Measure:
        """Examples, and targets of the risk."""
        return Measure("examples", "loss")

    @property
    def task(self) -> str:
        """The optimiser and the model, without what is varied: "NQM momentum power=0.5"."""
        parts = ["NQM", self.optimizer]
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name not in _VARIED and value != f.default:
                parts.append(f"{f.name}={value:g}")
        return " ".join(parts)

    @property
    def setting(self) -> str:
        """The coefficients of momentum and averaging, in full."""
        if self.optimizer == "sgd":
            return ""
        own = f"{'averaging' if self.optimizer == 'ema' else 'momentum'}={self.coefficient!r}"
        return own + (f" averaging={self.averaging!r}" if self.optimizer.endswith("-ema") else "")

    @property
    def run_id(self) -> str:
        """See `rl_scaling.config.run_id_of`."""
        return run_id_of(self)
