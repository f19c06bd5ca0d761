"""Runs of the noisy quadratic model in the form that every other run has: configs in, records out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator

import numpy as np

from rl_scaling.nqm.closed_form import Model, noise_scales, power_law, second_moments
from rl_scaling.nqm.config import NQMConfig
from rl_scaling.nqm.search import steps_to_target
from rl_scaling.records import LossRecord

ROWS = 120  # rows that are spread evenly over log steps


def model_of(config: NQMConfig) -> Model:
    """The model a config describes."""
    return power_law(config.dimension, config.spectrum_exponent, config.noise_exponent, config.noise_scale)


def records(config: NQMConfig) -> Iterator[LossRecord]:
    """The run's rows, from the start to its last update: exact risk, exact noise scales.

    Rows lie evenly over log steps, and a row's noise moments stand for all updates since the row before. An optimiser
    that diverges has a first row alone.
    """
    begun = time.perf_counter()
    updates = np.unique(np.round(np.geomspace(1, config.updates, ROWS)).astype(np.int64))
    updates = np.concatenate([[0], updates])
    arguments = (updates[:, None], np.float64(config.learning_rate), np.float64(config.coefficient))
    model = model_of(config)
    left, noise = second_moments(model, config.optimizer, *arguments, config.power)
    left[0], noise[0] = model.curvature / 2, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        risk = (left + noise / config.batch_size) @ model.count
        if config.optimizer == "ema":  # gradients are taken at SGD's iterates, not at their average
            left, noise = second_moments(model, "sgd", *arguments, config.power)
        moments = noise_scales(model, left, noise, np.full(len(updates), float(config.batch_size)))
    for row, update in enumerate(updates.tolist()):
        if not np.isfinite(risk[row]):
            return
        yield LossRecord(
            updates=update,
            examples=update * config.batch_size,
            wall_seconds=time.perf_counter() - begun,
            loss=float(risk[row]),
            current_learning_rate=config.learning_rate,
            noise_measurements=update - (int(updates[row - 1]) if row else 0),
            **{name: float(values[row]) for name, values in moments.items()},
        )


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
    """
    sizes = sorted(set(batch_sizes))
    best = steps_to_target(sizes, base.optimizer, power=base.power, target=target, model=model_of(base))
    for row in best.itertuples():
        if not np.isfinite(float(str(row.steps))):
            continue
        for place in range(rates):
            factor = spacing ** (place - (rates - 1) / 2)
            yield dataclasses.replace(
                base,
                batch_size=int(float(str(row.batch_size))),
                learning_rate=float(str(row.learning_rate)) * factor,
                coefficient=float(str(row.coefficient)),
                updates=max(4, int(1.5 * float(str(row.steps)))),
            )
