"""A supervised run: data, model, optimiser, schedule and budget, for the store. It imports no torch."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from rl_scaling.config import (
    AdaptiveConfig,
    Config,
    ConfigError,
    RunDescription,
    added_later,
    differing,
    require,
    require_fraction,
    require_positive,
    variant_of,
)
from rl_scaling.records import Identity

# What the sweeps measured before it was part of a config.
NOISE_EVERY_UPDATES = 4
# Groups of a batch whose gradients are compared, and the time constant of the running estimate in measurements.
GROUPS, WINDOW = 8, 50
# B* of A.3, and the batch size at which the rates of the problems are known to work.
REFERENCE_BATCH = 64
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "rmsprop")
WITH_MOMENTUM = ("momentum", "nesterov", "adam")
# Where it is not the default of `OptimizerConfig`, on which old run ids rest.
CUSTOMARY_SECOND_MOMENT = {"adam": 0.999}
SCHEDULES = ("constant", "linear", "halving", "triggered")
QUANTITIES = ("validation_loss", "training_loss", "loss")
# What is tuned, varied, only measured, or told by a column of its own.
_NO_VARIANT = (
    *("dataset", "model", "schedule", "batch_size", "updates", "budget", "seed", "adaptive"),
    *("noise_every_updates", "b_noise_every_rows"),
)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config):
    """An optimiser of torch with its coefficients.

    Attributes:
        name: one of `OPTIMIZERS`; "momentum" is heavy ball.
        momentum: of heavy ball, Nesterov and Adam (beta_1; 0: Adam without momentum); 0 for the others.
        second_moment: decay of the squared gradients in Adam (beta_2) and RMSProp (alpha).
        epsilon: of Adam and RMSProp, outside the root.
        ema: decay of an average of the weights, which is what is evaluated; 0: none.
    """

    name: str = "sgd"
    learning_rate: float
    momentum: float = 0.0
    second_moment: float = 0.99
    epsilon: float = 1e-8
    ema: float = 0.0

    def check(self) -> None:
        require(self.name in OPTIMIZERS, f"no optimizer {self.name!r}: {', '.join(OPTIMIZERS)}")
        require_positive(self, "learning_rate", "epsilon")
        for name in ("momentum", "second_moment", "ema"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} is {value}: give a number from 0 to below 1")
        if self.name in ("momentum", "nesterov"):
            require(self.momentum > 0, f"{self.name} with a momentum of 0 is sgd: give a momentum such as 0.9")
        require(self.name in WITH_MOMENTUM or self.momentum == 0, f"{self.name} has no momentum: leave it at 0")

    @property
    def label(self) -> str:
        """What tells optimisers apart whatever their tuned coefficients: "sgd+ema", "adam-without-momentum"."""
        without = "-without-momentum" if self.name == "adam" and self.momentum == 0 else ""
        return self.name + without + ("+ema" if self.ema else "")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Config):
    """How the learning rate changes; see `rl_scaling.domains.supervised.recipe`.

    Attributes:
        name: "constant"; "linear" decay to `final_factor` of the rate over `decay_updates`; or "halving": constant for
            the first half of the budget, then halved every further twentieth (Smith, Elsen and De 2020); or "triggered"
            by the training loss (McCandlish et al. 2018, A.4.1).
        final_factor: kappa of the linear decay.
        decay_updates: T of the linear decay.
        warmup_updates: updates over which the rate first rises linearly; 0: none.
        thresholds: training losses, falling, at each of which the triggered rate is multiplied by `factor`.
        factor: of the triggered decay.
    """

    name: str = "constant"
    final_factor: float = 1.0
    decay_updates: int = 0
    warmup_updates: int = 0
    thresholds: tuple[float, ...] = added_later(())
    factor: float = added_later(0.1)

    def check(self) -> None:
        require(self.name in SCHEDULES, f"no schedule {self.name!r}: {', '.join(SCHEDULES)}")
        require_fraction(self, "final_factor")
        require(self.warmup_updates >= 0, f"warmup_updates is {self.warmup_updates}: give 0 (none) or more")
        given = self.decay_updates > 0
        require(given == (self.name == "linear"), "decay_updates belongs to the linear schedule, which needs 1 or more")
        given = len(self.thresholds) > 0
        require(given == (self.name == "triggered"), "thresholds belong to the triggered schedule, which needs some")
        falling = all(a > b for a, b in pairwise(self.thresholds)) and all(map(math.isfinite, self.thresholds))
        require(falling, f"thresholds are {self.thresholds}: give losses that fall, such as 0.5 0.1")
        require(0 < self.factor < 1, f"factor is {self.factor}: give a number between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class AdaptiveExamplesConfig(AdaptiveConfig):
    """An adaptive batch of examples; the noise scale is measured in the run itself.

    Attributes:
        min_batch_size: fewest examples.
        max_batch_size: most examples.
        measure_every_updates: one update in this many is measured.
        groups: groups of examples whose gradients are compared.
        window_measurements: time constant of the moving average that the estimate is.
    """

    change_every_updates: int = 20
    rate_turn: float = float(REFERENCE_BATCH)
    rate_power: float = 1.0
    min_batch_size: int = 8
    max_batch_size: int = 1_024
    measure_every_updates: int = 1
    groups: int = GROUPS
    window_measurements: int = WINDOW

    def check(self) -> None:
        super().check()
        require_positive(self, "measure_every_updates", "window_measurements")
        require(self.groups >= 2, f"groups is {self.groups}: the noise scale needs 2 groups or more")
        require(
            self.groups <= self.min_batch_size <= self.max_batch_size,
            f"batches from {self.min_batch_size} to {self.max_batch_size} examples: give a min_batch_size of "
            f"{self.groups} or more, one example for each group, and a max_batch_size not below it",
        )


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(RunDescription):
    """One training run on labelled images.

    Attributes:
        dataset: name of the data set: digits, mnist, fashion-mnist, cifar10, svhn, svhn-extra, owner/name of the
            Hugging Face hub, or that of a problem of your own.
        model: name of the model: mlp, cnn, small-cnn, resnet8, resnet32, vgg11, wide-resnet, wide-resnet-skipinit,
            autoencoder, or that of a problem of your own.
        dropout: probability of dropout, in models that have it.
        batch_size: examples per update; where an adaptive batch begins.
        sampling: batches drawn with "replacement", or by "epoch": each example once before any comes again.
        augment: random crops, and mirror images except of digits.
        label_smoothing: smoothing of the labels in the loss that is trained; evaluation has none.
        updates: after which the run is done; an adaptive batch sees the same examples in other numbers of updates.
        budget: what fixed the updates, in words such as "10 epochs"; part of the task where the schedule follows it.
        quantity: the loss that goals are about, one of `QUANTITIES`; "loss" is that of the batches.
        adaptive: changes the batch size while training; `batch_size` is where it begins.
        noise_every_updates: one in this many updates measures B_simple; 0: none does. Batches of one example and models
            whose gradients do not come apart, as with batch normalisation, are not measured; an adaptive batch has
            its own `measure_every_updates`, and this is left at its default.
        b_noise_every_rows: one in N rows measures the noise scale with curvature, B_noise, the first among them; 0:
            none.
    """

    domain: ClassVar[str] = "supervised"
    kind: ClassVar[str] = "supervised"
    dataset: str = "digits"
    model: str = "mlp"
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    dropout: float = 0.0
    batch_size: int = 64
    sampling: Literal["replacement", "epoch"] = "replacement"
    augment: bool = False
    label_smoothing: float = 0.0
    updates: int = 1_000
    budget: str = ""
    quantity: str = "validation_loss"
    seed: int = 0
    adaptive: AdaptiveExamplesConfig | None = added_later(None)
    noise_every_updates: int = added_later(NOISE_EVERY_UPDATES)
    b_noise_every_rows: int = added_later(0)

    def check(self) -> None:
        require_positive(self, "batch_size", "updates")
        require_fraction(self, "dropout", "label_smoothing")
        require(self.seed >= 0, f"seed is {self.seed}: give 0 or more")
        require(self.sampling in ("replacement", "epoch"), f"no sampling {self.sampling!r}: replacement or epoch")
        require(self.quantity in QUANTITIES, f"no targets of {self.quantity!r}: {', '.join(QUANTITIES)}")
        require(not self.budget or _is_budget(self.budget), f"budget is {self.budget!r}: give for instance '10 epochs'")
        for name in ("noise_every_updates", "b_noise_every_rows"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: give 0 (never) or more")
        if self.adaptive is not None:
            object.__setattr__(self, "noise_every_updates", NOISE_EVERY_UPDATES)
            low, high = self.adaptive.min_batch_size, self.adaptive.max_batch_size
            inside = low <= self.batch_size <= high
            require(inside, f"batch_size is {self.batch_size}, where an adaptive batch begins: give {low} to {high}")
            constant = self.schedule == ScheduleConfig()
            require(constant, "an adaptive batch sets the learning rate by itself: give a constant schedule")

    @property
    def examples(self) -> int:
        """Seen by the end, whatever the batch size does on the way."""
        return self.updates * self.batch_size

    @property
    def length(self) -> int:
        """Examples."""
        return self.examples

    @property
    def largest_batch(self) -> int:
        """The most examples that an update may have."""
        return self.batch_size if self.adaptive is None else self.adaptive.max_batch_size

    @property
    def learning_rate(self) -> float:
        """The rate that the schedule starts from, or that an adaptive batch begins with."""
        return self.optimizer.learning_rate

    @property
    def setting(self) -> str:
        """How an adaptive batch is steered, momentum, averaging coefficient and the schedule's, where there are any."""
        tuned = {
            "momentum": self.optimizer.momentum,
            "ema": self.optimizer.ema,
            "warmup_updates": self.schedule.warmup_updates,
        }
        if self.schedule.name == "linear":
            tuned |= {"final_factor": self.schedule.final_factor, "decay_updates": self.schedule.decay_updates}
        if self.schedule.name == "triggered":
            tuned |= {"thresholds": self.schedule.thresholds, "factor": self.schedule.factor}
        linear = ("final_factor", "decay_updates")
        given = [f"{name}={value!r}" for name, value in tuned.items() if value or name in linear]
        return " ".join(given if self.adaptive is None else [self.adaptive.setting, *given])

    @property
    def identity(self) -> Identity:
        """Settings that differ from their defaults make a variant; what is tuned or varied does not."""
        variant = differing(self.optimizer, "name", "momentum", "ema", "second_moment")
        if self.optimizer.second_moment != CUSTOMARY_SECOND_MOMENT.get(self.optimizer.name, 0.99):
            variant.append(f"second_moment={self.optimizer.second_moment}")
        variant += differing(self, *_NO_VARIANT)
        if self.schedule.name != "constant" or self.schedule.warmup_updates:
            variant.append(f"schedule={self.schedule.name}")
        amount, unit = math.nan, ""
        if self.schedule.name == "halving":
            words = (self.budget or f"{self.updates} updates").split()
            amount, unit = float(words[0]), words[1]
        return Identity(
            domain=self.domain,
            problem=f"{self.dataset}-{self.model}",
            algorithm=self.optimizer.label,
            variant=variant_of(variant),
            budget_amount=amount,
            budget_unit=unit,
            unit="examples",
            quantity=self.quantity,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            setting=self.setting,
            exchange_rate=self.adaptive.exchange_rate if self.adaptive else math.nan,
            seed=self.seed,
        )


def _is_budget(words: str) -> bool:
    return re.fullmatch(r"[\d.]+(e[+-]?\d{1,2})? (epochs|steps|updates)", words) is not None


def kind_of(config: SupervisedConfig) -> SupervisedConfig:
    """What runs that train together agree in: the config without seed, rate, momentum, average and schedule."""
    optimizer = config.optimizer
    momentum, ema = 0.5 if optimizer.momentum else 0.0, 0.5 if optimizer.ema else 0.0
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(optimizer, learning_rate=1.0, momentum=momentum, ema=ema),
        schedule=ScheduleConfig(),
        seed=0,
    )


def updates_of_epochs(epochs: float, examples: int, batch_size: int) -> int:
    """Updates that make this many passes over the data, at least one.

    >>> updates_of_epochs(10, 1200, 64)
    188
    """
    return max(1, math.ceil(epochs * examples / batch_size))


@dataclass(frozen=True)
class Budget:
    """The same number of epochs at every batch size, or the same number of steps.

    Attributes:
        amount: of the unit, above 0.
        unit: "epochs" cost the same examples at every batch size, "steps" the same updates.

    Raises:
        ConfigError: an amount that is not above 0, or steps that are no whole number.

    >>> Budget(20, "epochs").updates(examples=1200, batch_size=64), Budget(20, "epochs").words
    (375, '20 epochs')
    """

    amount: float
    unit: Literal["epochs", "steps"]

    def __post_init__(self) -> None:
        if not 0 < self.amount < float("inf") or (self.unit == "steps" and self.amount != int(self.amount)):
            raise ConfigError(f"a budget of {self.words} is none: give a number above 0, whole for steps")

    @property
    def words(self) -> str:
        """What a run's config calls it."""
        return f"{self.amount:.10g} {self.unit}"

    def updates(self, *, examples: int, batch_size: int) -> int:
        """Updates of a run of this batch size on this many training examples."""
        return int(self.amount) if self.unit == "steps" else updates_of_epochs(self.amount, examples, batch_size)


def doubled(budget: Budget, times: int) -> list[Budget]:
    """A budget and its doublings, as long as none of them is enough: what is best over all is "unlimited".

    >>> [budget.words for budget in doubled(Budget(5, "epochs"), 2)]
    ['5 epochs', '10 epochs', '20 epochs']
    """
    return [Budget(budget.amount * 2.0**power, budget.unit) for power in range(times + 1)]
