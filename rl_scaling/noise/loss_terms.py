"""A meter for each part of a gradient: the losses of an actor-critic, layers, groups of parameters."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, SupportsFloat

from rl_scaling.noise.estimate import NoiseScaleEstimate
from rl_scaling.noise.meter import NoiseScaleMeter, measure


class PartMeters:
    """One `NoiseScaleMeter` for each named part of the gradient, all fed by the same batches.

    A part may be one term of the loss ("policy", "value", "entropy", "total") or the gradient of some of the
    parameters ("layers.0"). For parameters the squared norms of the parts add up to that of the whole; for terms of
    the loss they do not. The first update says which parts there are.

    >>> meters = PartMeters(group_size=2)
    >>> for noise in (0.9, 1.0, 1.2, 0.9):
    ...     meters.update(
    ...         {"policy": [2.0, 2.0 + noise], "value": [0.5 + noise, 0.5]}, {"policy": 1.7, "value": 0.6}
    ...     )
    >>> for part, estimate in meters.estimate().items():
    ...     print(f"{part}: {estimate}")
    policy: B_simple = 3.53 (95 %: 2.8-4.9), 4 measurements
    value: B_simple = 7.49 (95 %: 4.2-70), 4 measurements
    """

    def __init__(self, group_size: float, *, window: float | None = None) -> None:
        """Meters without measurements.

        Args:
            group_size: examples (frames) in a group, the same for all parts.

        Raises:
            ValueError: a number out of range.
        """
        NoiseScaleMeter(group_size, window=window)  # refuses wrong settings now and not at the first update
        self._group_size, self._window = group_size, window
        self._meters: dict[str, NoiseScaleMeter] = {}

    def __getitem__(self, part: str) -> NoiseScaleMeter:
        """The meter of a part.

        Raises:
            KeyError: there is no such part.
        """
        return self._meters[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self._meters)

    def update(
        self,
        group_sq_norms: Mapping[str, Iterable[SupportsFloat]],
        batch_sq_norms: Mapping[str, SupportsFloat],
        *,
        group_sizes: Iterable[SupportsFloat] | None = None,
        example_traces: Mapping[str, SupportsFloat] | None = None,
        learning_rate: SupportsFloat | None = None,
    ) -> None:
        """Takes in one batch; a part whose norms are not finite is skipped and counted in that part alone.

        Args:
            group_sq_norms: (k,) squared norms of the groups' mean gradients, for each part.
            batch_sq_norms: squared norm of the overall mean gradient, for each part.
            group_sizes: (k,) examples in each group where they differ; the same for all parts.
            example_traces: as `example_trace` of `NoiseScaleMeter.update`, for the parts that have one.

        Raises:
            ValueError: other parts than in the update before, or what `NoiseScaleMeter.update` refuses in a part; then
                no part has taken the batch in.
        """
        self._check_parts(group_sq_norms, batch_sq_norms)
        sizes = self._group_size if group_sizes is None else list(group_sizes)
        traces, read = example_traces or {}, {}
        for part, norms in group_sq_norms.items():
            with _errors_of(part):
                read[part] = measure(
                    norms, batch_sq_norms[part], sizes, example_trace=traces.get(part), learning_rate=learning_rate
                )
        for part, measurement in read.items():
            if part not in self._meters:
                self._meters[part] = NoiseScaleMeter(self._group_size, window=self._window)
            self._meters[part].add(measurement)

    def estimate(self, confidence: float = 0.95) -> dict[str, NoiseScaleEstimate]:
        """The noise scale of each part, in the order in which the first update named them.

        Raises:
            ValueError: no measurements yet in some part, or a confidence outside (0, 1).
        """
        if not self._meters:
            raise ValueError("no measurements yet: call update() first")
        estimates = {}
        for part, meter in self._meters.items():
            with _errors_of(part):
                estimates[part] = meter.estimate(confidence)
        return estimates

    def state_dict(self) -> dict[str, Any]:
        """The states of the meters, by part."""
        parts = {part: meter.state_dict() for part, meter in self._meters.items()}
        return {"group_size": self._group_size, "window": self._window, "parts": parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes exactly where the meters that gave the state were.

        Raises:
            ValueError: not a state of such meters, or one of other settings; these are left as they were.
        """
        try:
            settings, parts = (state["group_size"], state["window"]), dict(state["parts"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of PartMeters: {error}") from error
        if settings != (self._group_size, self._window):
            raise ValueError(
                f"the state is that of meters with group_size {settings[0]} and window {settings[1]}, these have"
                f" {self._group_size} and {self._window}: load it into meters made with the same settings"
            )
        meters = {}
        for part, of_part in parts.items():
            meters[part] = NoiseScaleMeter(self._group_size, window=self._window)
            meters[part].load_state_dict(of_part)
        self._meters = meters

    def _check_parts(self, group_sq_norms: Mapping[str, object], batch_sq_norms: Mapping[str, object]) -> None:
        if not group_sq_norms:
            raise ValueError("no parts: give the squared norms of at least one")
        known = self._meters.keys() or group_sq_norms.keys()
        odd = (group_sq_norms.keys() ^ known) | (batch_sq_norms.keys() ^ known)
        if odd:
            raise ValueError(
                f"{', '.join(sorted(odd))}: every update needs both norms of the same parts, here {', '.join(known)}"
            )


@contextmanager
def _errors_of(part: str) -> Generator[None]:
    """Errors name the part."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error
