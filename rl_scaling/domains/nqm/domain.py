"""The noisy quadratic model as a domain: exact runs, tuned around the optimum or on a grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rl_scaling.config import ConfigError, LearningRates, require
from rl_scaling.domains.base import Control, Domain, Ended, Event, Hardware, TaskPlan
from rl_scaling.domains.nqm.config import NQMConfig
from rl_scaling.domains.nqm.runs import records, tuned_grid


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
        """See `TaskPlan.explicit`."""
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
        """See `Domain.run`."""
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
