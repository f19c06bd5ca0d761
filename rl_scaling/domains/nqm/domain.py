"""The noisy quadratic model as a domain: exact runs, tuned around the optimum or on a grid; configs in, records out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rl_scaling.config import ConfigError, LearningRates, require
from rl_scaling.domains.base import Control, Domain, Ended, Event, Hardware, TaskPlan
from rl_scaling.domains.nqm.config import NQMConfig
from rl_scaling.domains.nqm.dynamics import diverges, noise_scales, risk
from rl_scaling.domains.nqm.hits import find_hits
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.spectrum import Parameters, Spectrum
from rl_scaling.domains.nqm.tuning import steps_to_target
from rl_scaling.records import LossRecord

ROWS = 48  # that are spread evenly over log steps


def spectrum_of(config: NQMConfig) -> Spectrum:
    """The problem a config describes."""
    parameters = Parameters(config.spectrum_exponent, config.noise_exponent, config.noise_scale)
    return parameters.spectrum(config.dimension)


def records(config: NQMConfig, targets: Iterable[float] = ()) -> Iterator[LossRecord]:
    """The run's rows, from the start to its last update: exact risk, exact noise scales.

    Rows lie evenly over log steps, and a row's noise moments stand for all updates since the row before. An optimiser
    that diverges has a first row alone.

    Args:
        targets: risks whose first hit has a row of its own, as has the update before it, so that nothing is left to
            interpolate.
    """
    begun = time.perf_counter()
    spectrum = spectrum_of(config)
    updates = np.zeros(1, dtype=np.int64)
    settings = _settings(config)
    del settings["batch_size"]
    if not diverges(spectrum, **settings):
        even = np.round(np.geomspace(1, config.updates, ROWS)).astype(np.int64)
        hits = [_first_hit(config, spectrum, even, target) for target in targets]
        known = [step for hit in hits if hit is not None for step in (hit - 1, hit)]
        updates = np.unique(np.concatenate([updates, even, np.array(known, dtype=np.int64)]))
    risks = _risks(config, spectrum, updates)
    moments = _noise_moments(config, spectrum, updates)
    for row, update in enumerate(updates.tolist()):
        yield LossRecord(
            updates=update,
            examples=update * config.batch_size,
            wall_seconds=time.perf_counter() - begun,
            loss=float(risks[row]),
            current_learning_rate=config.learning_rate,
            noise_measurements=update - (int(updates[row - 1]) if row else 0),
            **{name: float(values[row]) for name, values in moments.items()},
        )


def _settings(config: NQMConfig) -> dict[str, Any]:
    """What risks, hits and noise scales are computed for, less the averaging coefficient, which only risks take."""
    names = ("learning_rate", "batch_size", "optimizer", "coefficient", "power")
    return {name: getattr(config, name) for name in names}


def _risks(config: NQMConfig, spectrum: Spectrum, updates: NDArray[np.int64]) -> NDArray[np.float64]:
    return risk(spectrum, updates, averaging=config.averaging, **_settings(config))


def _first_hit(config: NQMConfig, spectrum: Spectrum, even: NDArray[np.int64], target: float) -> int | None:
    """The first update at or below the target; None if there is none.

    Exact, except for averages of momentum, where a dip between two of the `even` updates may go unnoticed.
    """
    if not find_optimizer(config.optimizer).averaged:
        return find_hits(spectrum, target, max_steps=config.updates, **_settings(config)).first or None
    while True:
        reached = np.flatnonzero(_risks(config, spectrum, even) <= target)
        if not len(reached) or reached[0] == 0:
            return None
        low, high = even[reached[0] - 1], even[reached[0]]
        if high == low + 1:
            return int(high)
        even = np.unique(np.linspace(low, high, ROWS).round().astype(np.int64))


def _noise_moments(config: NQMConfig, spectrum: Spectrum, updates: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The moments and both scales of the gradients as they are drawn, before the preconditioner, at each row."""
    if len(updates) == 1:  # the start, where the settings do not matter: some that are stable
        config = dataclasses.replace(config, optimizer="sgd", learning_rate=1e-9, averaging=0.0)
    scales = noise_scales(spectrum, updates, preconditioned=False, **_settings(config))
    return {
        "grad_sq_norm": scales.grad_sq_norm,
        "trace_cov": np.full(len(updates), scales.trace_cov),
        "noise_scale": scales.b_simple,
        "hessian_noise_scale": scales.b_noise,
    }


def tuned_grid(
    base: NQMConfig, batch_sizes: Iterable[int], target: float, *, rates: int = 5, spacing: float = 1.3
) -> Iterator[NQMConfig]:
    """Configs around the optimum of every batch size: learning rates on both sides of the best one.

    Args:
        base: the model, the optimiser and its power; sizes and rates are replaced.
        batch_sizes: in examples.
        target: risk for which rates are tuned; runs last 1.5 times the fewest steps to it.
        rates: per batch size, the best one in the middle.
        spacing: ratio of neighbouring rates.

    Raises:
        ValueError: a target that is not between 0 and the initial risk, batch sizes that are not positive.
    """
    spectrum = spectrum_of(base)
    spectrum.check_target(target)
    sizes = sorted(set(batch_sizes))
    best = steps_to_target(sizes, optimizer=base.optimizer, power=base.power, target=target, spectrum=spectrum)
    for size, row in zip(sizes, best, strict=True):
        if row.steps is None:
            continue
        for place in range(rates):
            yield dataclasses.replace(
                base,
                batch_size=size,
                learning_rate=row.learning_rate * spacing ** (place - (rates - 1) / 2),
                coefficient=row.coefficient,
                averaging=row.averaging,
                updates=max(4, int(1.5 * row.steps)),
            )


@dataclass(frozen=True, kw_only=True)
class NQMTask(TaskPlan):
    """One optimiser on the model, at given points or on a grid.

    Attributes:
        base: the model and the optimiser; batch size, rate and coefficients are replaced.
        points: configs to run instead of a grid, such as those of `tuned_grid`.
    """

    kind: ClassVar[str] = "nqm"
    base: NQMConfig
    points: tuple[NQMConfig, ...] = ()

    def config(self, batch_size: int, learning_rate: float, seed: int, **tuned: float) -> NQMConfig:
        """See `TaskPlan.config`; a search may tune "coefficient" and "averaging"."""
        return dataclasses.replace(self.base, batch_size=batch_size, learning_rate=learning_rate, seed=seed, **tuned)

    def explicit(self) -> Sequence[NQMConfig]:
        return self.points


class NoisyQuadraticModel(Domain[NQMConfig]):
    """See `rl_scaling.domains.base.Domain`; a run takes no longer than its first checkpoint would, so it has none."""

    name = "nqm"
    config = NQMConfig

    def run(
        self,
        configs: Sequence[NQMConfig],
        resume: Sequence[Mapping[str, Any] | None],
        control: Control,
        hardware: Hardware,
    ) -> Iterator[tuple[int, Event]]:
        for number, config in enumerate(configs):
            last = -1
            for record in records(config, control.goals):
                last = record.updates
                yield number, record
                if control.interrupt or number in control.stop:
                    break
            else:
                yield number, Ended("done" if last == config.updates else "diverged")
            if control.interrupt:
                return


def tuned_task(
    optimizer: str, *, power: float, batch_sizes: Sequence[int], targets: Sequence[float], rates: int = 5
) -> NQMTask:
    """Runs around the optimum of every batch size and target.

    Raises:
        ConfigError: targets or batch sizes that there can be no runs of.
    """
    base = NQMConfig(optimizer=optimizer, power=power, batch_size=1, learning_rate=1.0, updates=1)
    require(rates >= 1, f"rates is {rates}: give 1 or more")
    points: dict[str, NQMConfig] = {}
    try:
        for target in targets:
            points |= {c.run_id: c for c in tuned_grid(base, batch_sizes, target, rates=rates)}
    except ValueError as error:
        raise ConfigError(str(error)) from error
    require(len(points) > 0, f"{optimizer} reaches none of the targets at these batch sizes: give larger ones")
    first = min(points.values(), key=lambda config: config.batch_size)
    return NQMTask(
        base=first,
        points=tuple(points.values()),
        batch_sizes=tuple(sorted({config.batch_size for config in points.values()})),
        learning_rates=LearningRates(
            reference_rate=first.learning_rate, reference_batch=first.batch_size, turn=1.0, power=1.0, max_extensions=0
        ),
        goals=tuple(targets),
    )
