from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from rl_scaling.noise import NoiseScaleMeter, PartMeters


def batches(count: int, seed: int = 0) -> list[tuple[dict[str, Any], dict[str, float]]]:
    rng = np.random.default_rng(seed)
    return [
        ({"policy": rng.uniform(1, 2, 4), "value": rng.uniform(2, 3, 4)}, {"policy": 0.8, "value": 1.9})
        for _ in range(count)
    ]


@pytest.mark.parametrize("window", [None, 4.0])
def test_each_part_is_a_meter_of_its_own(window: float | None) -> None:
    parts, alone = PartMeters(5, window=window), NoiseScaleMeter(5, window=window)
    for norms, batch in batches(20):
        extra: dict[str, Any] = {"group_sizes": [5, 5, 5, 4], "learning_rate": 0.1}
        parts.update(norms, batch, example_traces={"value": 2.0}, **extra)
        alone.update(norms["value"], batch["value"], example_trace=2.0, **extra)
    estimates = parts.estimate(0.9)
    assert list(estimates) == list(parts) == ["policy", "value"]
    assert estimates["value"] == alone.estimate(0.9)
    assert parts["value"].state_dict() == alone.state_dict()
    assert math.isnan(estimates["policy"].design_effect)


def test_a_part_that_is_not_finite_is_skipped_alone() -> None:
    parts = PartMeters(5)
    (norms, batch), *rest = batches(6)
    parts.update(norms | {"value": [math.inf, 1, 1, 1]}, batch)
    for others in rest:
        parts.update(*others)
    estimates = parts.estimate()
    assert (estimates["policy"].steps, estimates["policy"].skipped) == (6, 0)
    assert (estimates["value"].steps, estimates["value"].skipped) == (5, 1)


def test_a_restored_set_continues_exactly() -> None:
    parts, restored = PartMeters(5), PartMeters(5)
    for norms, batch in batches(9):
        parts.update(norms, batch)
    restored.load_state_dict(json.loads(json.dumps(parts.state_dict(), allow_nan=False)))
    for norms, batch in batches(9, seed=1):
        parts.update(norms, batch)
        restored.update(norms, batch)
    assert restored.state_dict() == parts.state_dict()
    assert repr(restored.estimate()) == repr(parts.estimate())


@pytest.mark.parametrize(
    ("norms", "batch", "message"),
    [
        ({}, {}, "no parts"),
        ({"policy": [1, 1]}, {"policy": 1}, "value: every update"),
        ({"policy": [1, 1], "value": [1, 1]}, {"policy": 1}, "value: every update"),
        ({"policy": [1, 1], "value": [1, 1], "new": [1, 1]}, {"policy": 1, "value": 1, "new": 1}, "new: every update"),
        ({"policy": [1, 1], "value": [1]}, {"policy": 1, "value": 1}, "value: 1 group"),
    ],
)
def test_a_wrong_update_is_refused_and_nothing_is_lost(norms: Any, batch: Any, message: str) -> None:
    parts = PartMeters(5)
    parts.update(*batches(1)[0])
    before = parts.state_dict()
    with pytest.raises(ValueError, match=message):
        parts.update(norms, batch)
    assert parts.state_dict() == before


def test_wrong_states_and_settings_are_refused() -> None:
    parts = PartMeters(5)
    parts.update(*batches(1)[0])
    before = parts.state_dict()
    for state, message in (
        ({}, "not the state of PartMeters"),
        (before | {"parts": {"policy": {}}}, "not the state"),
        (PartMeters(6).state_dict(), "group_size 6"),
    ):
        with pytest.raises(ValueError, match=message):
            parts.load_state_dict(state)
    assert parts.state_dict() == before
    with pytest.raises(ValueError, match="window"):
        PartMeters(5, window=0.1)


def test_estimates_before_measurements_are_refused() -> None:
    parts = PartMeters(5)
    with pytest.raises(ValueError, match=r"call update\(\) first"):
        parts.estimate()
    parts.update({"policy": [math.nan, 1.0]}, {"policy": 1.0})
    with pytest.raises(ValueError, match="policy: no measurements yet"):
        parts.estimate()
