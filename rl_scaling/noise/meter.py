"""A meter that training feeds with squared norms, and that can be asked for the noise scale at any time."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Iterable
from typing import Any, NamedTuple, SupportsFloat

import numpy as np

from rl_scaling.noise.estimate import FloatArray, NoiseScaleEstimate, estimate_noise_scale, moments_from_groups

# Measurements older than this many time constants weigh less than e^-8 of the newest and are dropped.
_KEPT_TIME_CONSTANTS = 8
# |mean|^2 <= mean of |.|^2 for any vectors; sums handed in as means exceed it by a factor of about k or more.
_CONVEXITY_TOLERANCE = 1.5


class Measurement(NamedTuple):
    """What one batch says; NaN where a number is not known. Norms that were not finite leave moments that are not."""

    grad_sq_norm: float
    trace_cov: float
    example_trace: float
    batch_size: float
    learning_rate: float


# The names under which a state keeps them; the last two are missing from states of version 0.1.
_SERIES = ("grad_sq_norms", "trace_covs", "example_traces", "batch_sizes", "learning_rates")
_ADDED = _SERIES[3:]


class NoiseScaleMeter:
    """Measures B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, eq. 2.9, A.2) from groups of gradients.

    Each update keeps the two unbiased moments of one batch (`moments_from_groups`) as they are, negative or not;
    they are averaged apart and divided when an estimate is asked for. In reinforcement learning a group must be
    one or more whole environments: frames of one environment depend on each other, and groups that share an
    environment take that dependence for signal.

    With a window, measurements weigh exp(-age / window) and the oldest are dropped; without one all count
    alike and 40 bytes are kept per measurement. Neighbouring measurements may depend on each other: how far is read off
    the measurements, and the interval is as long as that makes it (`rl_scaling.statistics.jackknife`).

    >>> meter = NoiseScaleMeter(group_size=2)
    >>> meter.update([1.0, 2.0, 2.0], 1.0)
    >>> print(meter.estimate())
    unresolved, B_simple > 0 (95 %), 1 measurement
    >>> for group_sq_norms, batch_sq_norm in (([2.0, 2.0, 3.0], 1.6), ([1.5, 2.0, 2.2], 1.1), ([1.0, 1.8, 2.0], 1.1)):
    ...     meter.update(group_sq_norms, batch_sq_norm)
    >>> print(meter.estimate(confidence=0.9))
    B_simple = 2.28 (90 %: 1.7-4), 4 measurements

    Attributes:
        latest: the batch taken in last, with moments that are not finite where it was skipped; None before the first.
    """

    def __init__(self, group_size: float, *, window: float | None = None) -> None:
        """A meter without measurements.

        Args:
            group_size: examples (frames) in a group.
            window: time constant, in measurements, of an exponential moving average, 1 or more; None: all
                measurements count alike.

        Raises:
            ValueError: a number out of range.
        """
        if not (math.isfinite(group_size) and group_size > 0):
            raise ValueError(f"group_size is {group_size}: give the number of examples in a group")
        if window is not None and not (math.isfinite(window) and window >= 1):
            raise ValueError(f"window is {window}: give a number of measurements, 1 or more, or None for all alike")
        self._group_size, self._window = group_size, window
        self._skipped = 0
        self.latest: Measurement | None = None
        self._series = tuple(array("d") for _ in _SERIES)

    def update(
        self,
        group_sq_norms: Iterable[SupportsFloat],
        batch_sq_norm: SupportsFloat,
        *,
        group_sizes: Iterable[SupportsFloat] | None = None,
        example_trace: SupportsFloat | None = None,
        learning_rate: SupportsFloat | None = None,
    ) -> None:
        """Takes in one batch: a few microseconds for numbers; arrays and tensors of any library are read once.

        A batch with a norm that is not finite, or with fewer than two groups that have examples, is skipped and
        counted: such a batch is something that happens to training and must not end it.

        Args:
            group_sq_norms: (k,) squared norms of the groups' mean gradients, k >= 2.
            batch_sq_norm: squared norm of the overall mean gradient (each group counts by its size), before any
                clipping.
            group_sizes: (k,) examples in each group where they differ, as with masked frames; a group of 0 is left out.
            example_trace: unbiased estimate of tr(Sigma) of single examples (`example_trace` in this package), for
                the design effect; it may be given as rarely as is convenient, and one that is not finite is ignored.
            learning_rate: that of the update, reported beside the estimate; 0, as in a warm-up, is left out of the
                mean.

        Raises:
            ValueError: fewer than two groups, shapes that do not fit, a negative norm, size or learning rate, or an
                overall mean longer than means of its parts can be (the sign of sums handed in for means).
        """
        sizes = self._group_size if group_sizes is None else group_sizes
        further = {"example_trace": example_trace, "learning_rate": learning_rate}
        self.add(measure(group_sq_norms, batch_sq_norm, sizes, **further))

    def add(self, measurement: Measurement) -> None:
        """Takes in one batch that `measure` has read; one without finite moments is skipped and counted."""
        self.latest = measurement
        if not math.isfinite(measurement.grad_sq_norm + measurement.trace_cov):
            self._skipped += 1
            return
        for values, value in zip(self._series, measurement, strict=True):
            values.append(value)
        if self._window is not None and len(self._series[0]) > 2 * self._limit(self._window):
            for values in self._series:
                del values[: -self._limit(self._window)]

    def estimate(self, confidence: float = 0.95) -> NoiseScaleEstimate:
        """The noise scale as measured so far, with its interval.

        Raises:
            ValueError: no measurements yet, or a confidence outside (0, 1).
        """
        squares, traces, example_traces, batch_sizes, learning_rates = self._kept()
        if len(squares) == 0:
            skipped = f" (all {self._skipped} so far had norms that are not finite)" if self._skipped else ""
            raise ValueError(f"no measurements yet: call update() first{skipped}")
        age = np.arange(len(squares))[::-1]
        weights = np.ones(len(squares)) if self._window is None else np.exp(-age / self._window)
        options = {"example_traces": example_traces, "confidence": confidence, "skipped": self._skipped}
        estimate = estimate_noise_scale(squares, traces, weights=weights, **options)
        log_rates = np.log(learning_rates, where=learning_rates > 0, out=np.full(len(squares), math.nan))
        return dataclasses.replace(
            estimate,
            batch_size=_known_mean(batch_sizes, weights),
            learning_rate=math.exp(_known_mean(log_rates, weights)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Settings and measurements as numbers and lists, for JSON or `torch.load(weights_only=True)`."""
        state = {"group_size": self._group_size, "window": self._window, "skipped": self._skipped}
        for name, values in zip(_SERIES, self._kept(), strict=True):
            # None where there is none: NaN is not JSON
            state[name] = [None if math.isnan(value) else value for value in values.tolist()]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes exactly where the meter that gave the state was. States of version 0.1 are read too.

        Raises:
            ValueError: not a state of a meter, or that of a meter with another group size or window, whose measurements
                mean something else; this meter is left as it was.
        """
        loaded = NoiseScaleMeter(self._group_size, window=self._window)
        try:
            settings = (state["group_size"], state["window"])
            loaded._skipped = int(state["skipped"])
            unknown = [None] * len(state[_SERIES[0]])
            columns = [state.get(name, unknown) if name in _ADDED else state[name] for name in _SERIES]
            for row in zip(*columns, strict=True):
                square, trace, *others = row
                loaded.add(Measurement(square, trace, *(math.nan if value is None else value for value in others)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of a NoiseScaleMeter: {error}") from error
        if settings != (self._group_size, self._window):
            raise ValueError(
                f"the state is that of a meter with group_size {settings[0]} and window {settings[1]}, this one has"
                f" {self._group_size} and {self._window}: load it into a meter made with the same settings"
            )
        self._skipped, self._series = loaded._skipped, loaded._series

    def _kept(self) -> tuple[FloatArray, ...]:
        """Copies of the measurements that count. No views: an exported buffer would forbid the next append."""
        first = 0 if self._window is None else max(0, len(self._series[0]) - self._limit(self._window))
        return tuple(np.array(values[first:], dtype=np.float64) for values in self._series)

    @staticmethod
    def _limit(window: float) -> int:
        return math.ceil(_KEPT_TIME_CONSTANTS * window)


def measure(
    group_sq_norms: Iterable[SupportsFloat],
    batch_sq_norm: SupportsFloat,
    group_sizes: float | Iterable[SupportsFloat],
    *,
    example_trace: SupportsFloat | None = None,
    learning_rate: SupportsFloat | None = None,
) -> Measurement:
    """Reads one batch; arguments and errors are those of `NoiseScaleMeter.update`.

    >>> measure([1.0, 2.0, 2.0], 1.0, 2).trace_cov
    2.0
    """
    norms, batch = _floats("group_sq_norms", group_sq_norms), float(batch_sq_norm)
    if isinstance(group_sizes, int | float):
        sizes = [float(group_sizes)] * len(norms)
    else:
        sizes = _floats("group_sizes", group_sizes)
    rate = math.nan if learning_rate is None else float(learning_rate)
    _check(norms, batch, sizes, rate)
    if 0 in sizes:  # the mean gradient of an empty group is 0 / 0
        norms = [norm for norm, size in zip(norms, sizes, strict=True) if size > 0]
        sizes = [size for size in sizes if size > 0]
    per_example = math.nan if example_trace is None else float(example_trace)
    total = sum(sizes)
    if len(norms) < 2 or not math.isfinite(sum(norms) + batch + total):
        return Measurement(math.nan, math.nan, per_example, total, rate)
    if batch > _CONVEXITY_TOLERANCE * max(norms):
        raise ValueError(
            f"batch_sq_norm {batch:g} exceeds all group_sq_norms (at most {max(norms):g}), which no mean of"
            " the groups can: give squared norms of mean gradients, not of sums"
        )
    return Measurement(*moments_from_groups(norms, batch, sizes), per_example, total, rate)


def _check(norms: list[float], batch: float, sizes: list[float], learning_rate: float) -> None:
    if len(norms) < 2:
        raise ValueError(f"{len(norms)} group(s) of gradients: the noise scale compares groups and needs at least two")
    if len(sizes) != len(norms):
        raise ValueError(f"{len(norms)} groups but {len(sizes)} group sizes: give one size per group")
    if min(sizes) < 0 or min(norms) < 0 or batch < 0:
        raise ValueError("a squared norm or a group size is negative: give squared norms of mean gradients")
    if learning_rate < 0:
        raise ValueError(f"learning_rate is {learning_rate}: give a number of 0 or more")


def _known_mean(values: FloatArray, weights: FloatArray) -> float:
    """The weighted mean of those that are finite; NaN if none are."""
    known = np.isfinite(values)
    return float(weights[known] @ values[known] / weights[known].sum()) if known.any() else math.nan


def _floats(name: str, values: Any) -> list[float]:
    """A list of floats from any sequence; `tolist` reads a tensor on an accelerator in one transfer."""
    try:
        return [float(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
    except TypeError as error:
        raise ValueError(f"{name} must be one number per group, of shape (k,)") from error
