"""Does the noise scale follow the temperature (McCandlish et al. 2018, appendix C and Figure 15)?

SGD near the minimum of a loss wanders about it: the larger T = learning rate / batch size, the further, and the larger
|G|^2, while tr(Sigma) stays. So B_simple = tr(Sigma) / |G|^2 goes as 1 / T (eqs. C.1, C.2). Here a network is trained
until its loss is flat; then T is lowered by a factor for a while, through the learning rate, the batch size or both,
and raised again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from rl_scaling.config import ConfigError
from rl_scaling.noise import NoiseScaleEstimate, NoiseScaleMeter
from rl_scaling.validation.experiments.digits import load_digits, small_mlp

FloatArray = NDArray[np.float64]
Weights = dict[str, Tensor]
What = Literal["learning-rate", "batch-size", "both"]

_EXACT_EVERY = 20  # updates between two gradients of all the data, in the measured half of a phase
_CURVE_POINTS = 60  # of a phase


@dataclass(frozen=True)
class TemperatureSettings:
    """The experiment but for what is changed.

    The labels in part random and the weight decay keep the network from fitting every example: where it can, tr(Sigma)
    and |G|^2 vanish together, the loss never becomes flat and there is no equilibrium to speak of.

    Attributes:
        factor: by which T is lowered in the middle phase, above 1.
        learning_rate: of plain SGD in the outer phases; small enough that the noise, and not the curvature, limits it.
        batch_size: examples per update in the outer phases, a multiple of `groups`.
        groups: of an update, for the noise scale.
        hidden: units of the network's one hidden layer.
        label_noise: share of the examples whose label is drawn at random.
        weight_decay: coefficient w of w |theta|^2 / 2 in the loss.
        pretrain_updates: before the first phase.
        phase_updates: of each of the three phases; the first half of each is left to settle and is not measured.
        window: time constant in updates of the running estimate.
        seed: of weights, labels and batches.

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
        if not 1 < self.factor < math.inf:
            raise ConfigError(f"factor is {self.factor}: give a number above 1, such as 16")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning rate is {self.learning_rate}: give a positive number")
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


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One third of a run.

    Attributes:
        name: before, during or after.
        learning_rate, batch_size: of every update in it.
        estimate: B_simple over the second half of the phase, from the groups of the training batches.
        b_simple_exact: the same with |G|^2 averaged over gradients of all the data: what `estimate` should find.
        loss: mean loss of all the data in the second half, weight decay included.
    """

    name: str
    learning_rate: float
    batch_size: int
    estimate: NoiseScaleEstimate
    b_simple_exact: float
    loss: float

    @property
    def temperature(self) -> float:
        """T = learning rate / batch size, of plain SGD."""
        return self.learning_rate / self.batch_size


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of noise scales; `value` is NaN and an end is open where one of the two is not resolved."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TemperatureRun:
    """The three phases for one way of changing the temperature.

    Attributes:
        what: was changed.
        phases: before, during, after.
        updates: (n,) since the first phase began.
        b_simple, low, high: (n,) the running estimate there, with its interval; b_simple is NaN while unresolved.
    """

    what: What
    phases: tuple[Phase, ...]
    updates: NDArray[np.int64]
    b_simple: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def expected(self) -> float:
        """What eq. C.2 expects of `ratio`: T before over T during."""
        return self.phases[0].temperature / self.phases[1].temperature

    @property
    def ratio(self) -> Ratio:
        """B_simple during over B_simple before."""
        return ratio_of_estimates(self.phases[1].estimate, self.phases[0].estimate)

    @property
    def return_ratio(self) -> Ratio:
        """B_simple after over B_simple before; 1 is expected."""
        return ratio_of_estimates(self.phases[2].estimate, self.phases[0].estimate)

    @property
    def exact_ratio(self) -> float:
        """`ratio` with |G|^2 from all the data."""
        return self.phases[1].b_simple_exact / self.phases[0].b_simple_exact


def ratio_of_estimates(numerator: NoiseScaleEstimate, denominator: NoiseScaleEstimate) -> Ratio:
    """The ratio of two independent noise scales.

    Each end adds the two distances in logs in squares (MOVER, Donner and Zou 2012): intervals need not be symmetric.
    """
    if not denominator.resolved:
        return Ratio(value=math.nan, low=0.0, high=math.inf)
    if not numerator.resolved:
        return Ratio(value=math.nan, low=numerator.low / denominator.high, high=math.inf)

    def end(top: float, bottom: float, sign: int) -> float:
        reach = math.hypot(math.log(top / numerator.b_simple), math.log(bottom / denominator.b_simple))
        return numerator.b_simple / denominator.b_simple * math.exp(sign * reach)

    return Ratio(
        value=numerator.b_simple / denominator.b_simple,
        low=end(numerator.low, denominator.high, -1),
        high=end(numerator.high, denominator.low, 1),
    )


class _Training:
    """SGD on the digits, whose gradients come in groups."""

    def __init__(self, settings: TemperatureSettings):
        self._settings = settings
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._images, classes = load_digits()
        wrong = torch.rand(len(classes), generator=self._generator) < settings.label_noise
        others = torch.randint(10, classes.shape, generator=self._generator)
        self._classes = torch.where(wrong, others, classes)
        self._model = small_mlp(settings.hidden, settings.seed)
        self.weights: Weights = {name: weight.detach() for name, weight in self._model.named_parameters()}
        self._group_gradients = vmap(grad(self._loss), in_dims=(None, 0, 0))

    def copy(self) -> _Training:
        """The same place, so that every way of changing the temperature starts alike."""
        other = _Training(self._settings)
        other.weights = dict(self.weights)
        other._generator.set_state(self._generator.get_state())
        return other

    def update(self, learning_rate: float, batch_size: int) -> tuple[list[float], float]:
        """One update; (k,) squared norms of the groups' mean gradients and that of the batch's."""
        shape = (self._settings.groups, batch_size // self._settings.groups)
        rows = torch.randint(len(self._classes), shape, generator=self._generator)
        groups = self._group_gradients(self.weights, self._images[rows], self._classes[rows])
        batch = {name: gradients.mean(0) for name, gradients in groups.items()}
        self.weights = {name: weight - learning_rate * batch[name] for name, weight in self.weights.items()}
        norms = sum(((g**2).flatten(1).sum(1) for g in groups.values()), torch.zeros(len(rows)))
        return norms.tolist(), _sq_norm(batch)

    def whole(self) -> tuple[float, float]:
        """|G|^2 and the loss over all the data."""
        gradient = grad(self._loss)(self.weights, self._images, self._classes)
        return _sq_norm(gradient), float(self._loss(self.weights, self._images, self._classes))

    def _loss(self, weights: Weights, images: Tensor, classes: Tensor) -> Tensor:
        decay = torch.stack([(weight**2).sum() for weight in weights.values()]).sum()
        outputs = functional_call(self._model, weights, (images,))
        return cross_entropy(outputs, classes) + self._settings.weight_decay / 2 * decay


def temperature_runs(
    settings: TemperatureSettings, whats: tuple[What, ...], progress: Callable[[str], None]
) -> Iterator[TemperatureRun]:
    """One run for each way of changing the temperature, all from the same pretrained network.

    Raises:
        ConfigError: scikit-learn is not installed, or training diverged.
    """
    start = _Training(settings)
    for _ in range(settings.pretrain_updates):
        start.update(settings.learning_rate, settings.batch_size)
    progress(f"pretrained for {settings.pretrain_updates:,} updates: loss {start.whole()[1]:.3f}")
    for what in whats:
        yield _run(settings, what, start.copy(), progress)


def _run(
    settings: TemperatureSettings, what: What, training: _Training, progress: Callable[[str], None]
) -> TemperatureRun:
    running = NoiseScaleMeter(settings.batch_size / settings.groups, window=settings.window)
    phases, points = [], []
    for name, learning_rate, batch_size in settings.phases(what):
        phase, found = _phase(settings, training, running, (name, learning_rate, batch_size))
        points += [(len(phases) * settings.phase_updates + update, *rest) for update, *rest in found]
        phases.append(phase)
        progress(f"{what}, {name}: {phase.estimate}")
    updates, values, lows, highs = np.array(points).T
    return TemperatureRun(
        what=what, phases=tuple(phases), updates=updates.astype(np.int64), b_simple=values, low=lows, high=highs
    )


def _phase(
    settings: TemperatureSettings, training: _Training, running: NoiseScaleMeter, plan: tuple[str, float, int]
) -> tuple[Phase, list[tuple[float, float, float, float]]]:
    """The phase, and (update in the phase, running B_simple, low, high) at some points of it."""
    name, learning_rate, batch_size = plan
    size = batch_size / settings.groups
    meter = NoiseScaleMeter(size)
    exact, points = [], []
    every = max(1, settings.phase_updates // _CURVE_POINTS)
    for update in range(1, settings.phase_updates + 1):
        late = update > settings.phase_updates // 2
        if late and update % _EXACT_EVERY == 0:
            exact.append(training.whole())
        norms, batch = training.update(learning_rate, batch_size)
        if not math.isfinite(batch):
            raise ConfigError(f"training diverged at a learning rate of {learning_rate:g}: give a smaller one")
        running.update(norms, batch, group_sizes=[size] * settings.groups, learning_rate=learning_rate)
        if late:
            meter.update(norms, batch, learning_rate=learning_rate)
        if update % every == 0:
            now = running.estimate()
            points.append((update, now.b_simple, now.low, now.high))
    estimate = meter.estimate()
    square, loss = np.mean(exact or [training.whole()], axis=0)
    found = Phase(
        name=name,
        learning_rate=learning_rate,
        batch_size=batch_size,
        estimate=estimate,
        b_simple_exact=estimate.trace_cov / float(square),
        loss=float(loss),
    )
    return found, points


def _sq_norm(gradient: Weights) -> float:
    return float(torch.stack([(part**2).sum() for part in gradient.values()]).sum())
