"""A meter that training feeds with squared norms, and that can be asked for the noise scale at any time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import Any, SupportsFloat

import numpy as np

from rl_scaling.noise.estimate import FloatArray, NoiseScaleEstimate, estimate_noise_scale
from rl_scaling.noise.moments import moments_from_groups

# Measurements older than this many time constants weigh less than e^-8 of the newest and are dropped.
_KEPT_TIME_CONSTANTS = 8
# |mean|^2 <= mean of |.|^2 for any vectors; sums handed in as means exceed it by a factor of about k or more.
_CONVEXITY_TOLERANCE = 1.5
_SERIES = ("grad_sq_norms", "trace_covs", "example_traces")


class NoiseScaleMeter:
    """Measures B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, eq. 2.9, A.2) from groups of gradients.

    Each update keeps the two unbiased moments of one batch (`moments_from_groups`) as they are, negative or not;
    they are averaged apart and divided when an estimate is asked for. In reinforcement learning a group must be
    one or more whole environments: frames of one environment depend on each other, and groups that share an
    environment take that dependence for signal.

    With a window, measurements weigh exp(-age / window) and the oldest are dropped; without one all count
    alike and 24 bytes are kept per measurement. Neighbouring measurements may depend on each other: the interval only
    needs that dependence to be short against the series divided by `blocks`.

    >>> meter = NoiseScaleMeter(group_size=2)
    >>> meter.update([1.0, 2.0, 2.0], 1.0)
    >>> print(meter.estimate())
    unresolved, B_simple > 0 (95 %), 1 measurement
    >>> for group_sq_norms, batch_sq_norm in (([2.0, 2.0, 3.0], 1.6), ([1.5, 2.0, 2.2], 1.1), ([1.0, 1.8, 2.0], 1.1)):
    ...     meter.update(group_sq_norms, batch_sq_norm)
    >>> print(meter.estimate(confidence=0.9))
    B_simple = 2.35 (90 %: 1.7-4.0), 4 measurements
    """

    def __init__(self, group_size: float, *, window: float | None = None, blocks: int = 20) -> None:
        """A meter without measurements.

        Args:
            group_size: examples (frames) in a group.
            window: time constant, in measurements, of an exponential moving average, 1 or more; None: all
                measurements count alike.
            blocks: the largest number of jackknife blocks.

        Raises:
            ValueError: a number out of range.
        """
        if not (math.isfinite(group_size) and group_size > 0):
            raise ValueError(f"group_size is {group_size}: give the number of examples in a group")
        if window is not None and not (math.isfinite(window) and window >= 1):
            raise ValueError(f"window is {window}: give a number of measurements, 1 or more, or None for all alike")
        if blocks < 2:
            raise ValueError(f"blocks is {blocks}: an interval needs 2 or more")
        self._group_size, self._window, self._blocks = group_size, window, blocks
        self._skipped = 0
        self._grad_sq_norms, self._trace_covs, self._example_traces = array("d"), array("d"), array("d")

    def update(
        self,
        group_sq_norms: Iterable[SupportsFloat],
        batch_sq_norm: SupportsFloat,
        *,
        group_sizes: Iterable[SupportsFloat] | None = None,
        example_trace: SupportsFloat | None = None,
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

        Raises:
            ValueError: fewer than two groups, shapes that do not fit, a negative norm or size, or an overall mean
                longer than means of its parts can be (the sign of sums handed in for means).
        """
        norms, batch = _floats("group_sq_norms", group_sq_norms), float(batch_sq_norm)
        sizes = [self._group_size] * len(norms) if group_sizes is None else _floats("group_sizes", group_sizes)
        _check(norms, batch, sizes)
        if 0 in sizes:  # the mean gradient of an empty group is 0 / 0
            norms = [norm for norm, size in zip(norms, sizes, strict=True) if size > 0]
            sizes = [size for size in sizes if size > 0]
        if len(norms) < 2 or not math.isfinite(sum(norms) + batch + sum(sizes)):
            self._skipped += 1
            return
        if batch > _CONVEXITY_TOLERANCE * max(norms):
            raise ValueError(
                f"batch_sq_norm {batch:g} exceeds all group_sq_norms (at most {max(norms):g}), which no mean of"
                " the groups can: give squared norms of mean gradients, not of sums"
            )
        per_example = math.nan if example_trace is None else float(example_trace)
        self._append(*moments_from_groups(norms, batch, sizes), per_example)

    def estimate(self, confidence: float = 0.95) -> NoiseScaleEstimate:
        """The noise scale as measured so far, with its interval.

        Raises:
            ValueError: no measurements yet, or a confidence outside (0, 1).
        """
        squares, traces, examples = self._kept()
        if len(squares) == 0:
            skipped = f" (all {self._skipped} so far had norms that are not finite)" if self._skipped else ""
            raise ValueError(f"no measurements yet: call update() first{skipped}")
        weights = None if self._window is None else np.exp(-np.arange(len(squares))[::-1] / self._window)
        return estimate_noise_scale(
            squares,
            traces,
            weights=weights,
            example_traces=examples,
            blocks=self._blocks,
            confidence=confidence,
            skipped=self._skipped,
        )

    def state_dict(self) -> dict[str, Any]:
        """Settings and measurements as numbers and lists, for JSON or `torch.load(weights_only=True)`."""
        squares, traces, examples = (values.tolist() for values in self._kept())
        return {
            "group_size": self._group_size,
            "window": self._window,
            "blocks": self._blocks,
            "skipped": self._skipped,
            "grad_sq_norms": squares,
            "trace_covs": traces,
            # None where there is none: NaN is not JSON
            "example_traces": [None if math.isnan(value) else value for value in examples],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on exactly where the meter that gave the state was, with that meter's settings.

        Raises:
            ValueError: not a state of a meter; this meter is left as it was.
        """
        try:
            loaded = NoiseScaleMeter(state["group_size"], window=state["window"], blocks=state["blocks"])
            loaded._skipped = int(state["skipped"])
            columns = [state[name] for name in _SERIES]
            for square, trace, example in zip(*columns, strict=True):
                loaded._append(square, trace, math.nan if example is None else example)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of a NoiseScaleMeter: {error}") from error
        self.__dict__.update(loaded.__dict__)

    def _append(self, grad_sq_norm: float, trace_cov: float, example_trace: float) -> None:
        if not math.isfinite(grad_sq_norm + trace_cov):  # squares of finite numbers can overflow
            self._skipped += 1
            return
        self._grad_sq_norms.append(grad_sq_norm)
        self._trace_covs.append(trace_cov)
        self._example_traces.append(example_trace)
        if self._window is not None and len(self._trace_covs) > 2 * self._limit(self._window):
            for values in (self._grad_sq_norms, self._trace_covs, self._example_traces):
                del values[: -self._limit(self._window)]

    def _kept(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Copies of the measurements that count. No views: an exported buffer would forbid the next append."""
        first = 0 if self._window is None else max(0, len(self._trace_covs) - self._limit(self._window))
        series = (self._grad_sq_norms, self._trace_covs, self._example_traces)
        squares, traces, examples = (np.array(values[first:], dtype=np.float64) for values in series)
        return squares, traces, examples

    @staticmethod
    def _limit(window: float) -> int:
        return math.ceil(_KEPT_TIME_CONSTANTS * window)


def _check(norms: list[float], batch: float, sizes: list[float]) -> None:
    if len(norms) < 2:
        raise ValueError(f"{len(norms)} group(s) of gradients: the noise scale compares groups and needs at least two")
    if len(sizes) != len(norms):
        raise ValueError(f"{len(norms)} groups but {len(sizes)} group sizes: give one size per group")
    if min(sizes) < 0 or min(norms) < 0 or batch < 0:
        raise ValueError("a squared norm or a group size is negative: give squared norms of mean gradients")


def _floats(name: str, values: Any) -> list[float]:
    """A list of floats from any sequence; `tolist` reads a tensor on an accelerator in one transfer."""
    try:
        return [float(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]
    except TypeError as error:
        raise ValueError(f"{name} must be one number per group, of shape (k,)") from error
