from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.noise import NoiseScaleEstimate, NoiseScaleMeter, moments_from_groups
from tests.noise.reference import GaussianGradients, feed


def measured(n: int, *, window: float | None = None, seed: int = 0, noise_scale: float = 50) -> NoiseScaleMeter:
    meter = NoiseScaleMeter(group_size=5, window=window)
    feed(meter, GaussianGradients(noise_scale).group_means(np.random.default_rng(seed), n, groups=8, group_size=5))
    return meter


def comparable(estimate: NoiseScaleEstimate) -> str:
    """NaN is equal to itself here."""
    return repr(estimate)


def test_moments_are_averaged_apart_and_divided_once() -> None:
    meter = NoiseScaleMeter(group_size=3)
    batches = [([2.0, 3.0, 2.5], 1.2), ([5.0, 5.5, 4.0], 3.0), ([2.0, 2.2, 1.9], 0.4)]
    for norms, batch in batches:
        meter.update(norms, batch)
    moments = np.array([moments_from_groups(norms, batch, 3) for norms, batch in batches])
    assert moments[2, 0] < 0, "the example must have a negative estimate, to see that it is not clamped"
    estimate = meter.estimate()
    assert (estimate.grad_sq_norm, estimate.trace_cov) == pytest.approx(tuple(moments.mean(axis=0)))
    assert (estimate.steps, estimate.skipped) == (3, 0)


def test_a_resolved_estimate_is_the_ratio_of_the_means_inside_its_interval() -> None:
    estimate = measured(200).estimate()
    assert estimate.resolved
    plain = estimate.trace_cov / estimate.grad_sq_norm
    # The bias of a reciprocal is taken out: the square of the relative error, which the interval tells.
    relative_error = (plain / estimate.low - plain / estimate.high) / 4
    assert estimate.b_simple == pytest.approx(plain * (1 - relative_error**2), rel=0.01)
    assert 0 < estimate.low < estimate.b_simple < estimate.high < math.inf


def test_more_confidence_means_a_longer_interval() -> None:
    meter = measured(60)
    narrow, wide = meter.estimate(0.68), meter.estimate(0.95)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (narrow.confidence, wide.confidence) == (0.68, 0.95)


def test_one_measurement_says_nothing() -> None:
    estimate = measured(1).estimate()
    assert not estimate.resolved
    assert math.isnan(estimate.b_simple)
    assert (estimate.low, estimate.high, estimate.steps) == (0, math.inf, 1)


def test_no_measurement_is_an_error() -> None:
    meter = NoiseScaleMeter(5)
    with pytest.raises(ValueError, match=r"no measurements yet: call update\(\) first"):
        meter.estimate()
    meter.update([math.nan, 1.0], 1.0)
    with pytest.raises(ValueError, match="all 1 so far had norms that are not finite"):
        meter.estimate()


def test_equal_measurements_give_their_ratio_exactly() -> None:
    meter = NoiseScaleMeter(group_size=10)
    for _ in range(30):  # |G|^2 = 2, tr(Sigma) = 60
        meter.update([8.0] * 4, 2 + 60 / 40)
    estimate = meter.estimate()
    assert (estimate.b_simple, estimate.low, estimate.high) == pytest.approx((30, 30, 30))


@pytest.mark.filterwarnings("error")
def test_zero_gradients_are_unresolved() -> None:
    meter = NoiseScaleMeter(5)
    for _ in range(3):
        meter.update([0.0, 0.0], 0.0)
    estimate = meter.estimate()
    assert (estimate.grad_sq_norm, estimate.trace_cov, estimate.low, estimate.high) == (0, 0, 0, math.inf)
    assert not estimate.resolved


def test_equal_gradients_have_no_noise() -> None:
    meter = NoiseScaleMeter(5)
    for norm in (4.0, 1.0, 2.0):
        meter.update([norm] * 4, norm)
    estimate = meter.estimate()
    assert (estimate.b_simple, estimate.low, estimate.high, estimate.resolved) == (0, 0, 0, True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite_are_skipped_and_counted(bad: float) -> None:
    meter, clean = measured(20), measured(20)
    meter.update([bad, 1.0], 0.6)
    meter.update([1.0, 1.0], bad)
    meter.update([1e308] * 8, 1e308)  # finite, but its square is not
    estimate = meter.estimate()
    assert (estimate.skipped, estimate.steps) == (3, 20)
    assert (estimate.low, estimate.high) == (clean.estimate().low, clean.estimate().high)
    assert str(estimate).endswith("20 measurements, 3 skipped")


def test_groups_of_different_sizes() -> None:
    meter = NoiseScaleMeter(group_size=5)
    meter.update([3.0, 2.0, 4.0], 1.5, group_sizes=[5, 3, 1])
    estimate = meter.estimate()
    assert (estimate.grad_sq_norm, estimate.trace_cov) == pytest.approx(moments_from_groups([3, 2, 4], 1.5, [5, 3, 1]))


def test_groups_without_examples_are_left_out() -> None:
    meter, without = NoiseScaleMeter(5), NoiseScaleMeter(5)
    meter.update([3.0, math.nan, 4.0], 1.5, group_sizes=[5, 0, 1])
    without.update([3.0, 4.0], 1.5, group_sizes=[5, 1])
    assert comparable(meter.estimate()) == comparable(without.estimate())
    meter.update([3.0, math.nan], 3.0, group_sizes=[5, 0])
    meter.update([math.nan, math.nan], math.nan, group_sizes=[0, 0])
    assert (meter.estimate().steps, meter.estimate().skipped) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group_sq_norms": [1.0], "batch_sq_norm": 1.0}, "at least two"),
        ({"group_sq_norms": [], "batch_sq_norm": 1.0}, "at least two"),
        ({"group_sq_norms": 1.0, "batch_sq_norm": 1.0}, r"shape \(k,\)"),
        ({"group_sq_norms": np.ones((2, 2)), "batch_sq_norm": 1.0}, r"shape \(k,\)"),
        ({"group_sq_norms": [1.0, -1.0], "batch_sq_norm": 1.0}, "negative"),
        ({"group_sq_norms": [1.0, 1.0], "batch_sq_norm": 4.0}, "not of sums"),
        ({"group_sq_norms": [1.0, 1.0], "batch_sq_norm": 1.0, "group_sizes": [1]}, "one size per group"),
        ({"group_sq_norms": [1.0, 1.0], "batch_sq_norm": 1.0, "group_sizes": [1, -1]}, "negative"),
    ],
)
def test_a_wrong_update_is_refused_and_nothing_is_lost(arguments: dict[str, Any], message: str) -> None:
    meter = measured(5)
    before = meter.state_dict()
    with pytest.raises(ValueError, match=message):
        meter.update(**arguments)
    assert meter.state_dict() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_size": 0}, "group_size"),
        ({"group_size": math.nan}, "group_size"),
        ({"group_size": 5, "window": 0.5}, "window"),
        ({"group_size": 5, "window": math.inf}, "window"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseScaleMeter(**settings)


def test_tensors_arrays_and_lists_are_the_same() -> None:
    values = [2.0, 3.0, 2.5]
    estimates = []
    for norms, batch in (
        (values, 1.25),
        (np.array(values), np.float32(1.25)),
        (torch.tensor(values), torch.tensor(1.25)),
    ):
        meter = NoiseScaleMeter(4)
        meter.update(norms, batch, group_sizes=np.array([3, 4, 5]), example_trace=batch)
        estimates.append(comparable(meter.estimate()))
    assert estimates[0] == estimates[1] == estimates[2]


def test_design_effect_compares_traces_of_the_same_measurements() -> None:
    meter = NoiseScaleMeter(group_size=10)
    assert math.isnan(measured(3).estimate().design_effect)
    for step in range(20):
        trace = 1000.0 / (step + 1)  # gradients shrink during training
        early = step < 2
        meter.update([1 + trace / 10] * 4, 1 + trace / 40, example_trace=trace / 5 if early else None)
    assert meter.estimate().design_effect == pytest.approx(5)
    meter.update([1.1] * 4, 1.0, example_trace=math.nan)
    assert meter.estimate().design_effect == pytest.approx(5)
    assert meter.estimate().skipped == 0


@pytest.mark.parametrize("n", [1, 7, 50])
def test_the_window_is_an_exponential_moving_average(n: int) -> None:
    window = 10.0
    decay = math.exp(-1 / window)
    square = trace = weight = 0.0
    windowed, plain = measured(n, window=window), measured(n)
    state = plain.state_dict()
    for s, t in zip(state["grad_sq_norms"], state["trace_covs"], strict=True):
        square, trace, weight = decay * square + s, decay * trace + t, decay * weight + 1
    estimate = windowed.estimate()
    assert (estimate.grad_sq_norm, estimate.trace_cov) == pytest.approx((square / weight, trace / weight))
    assert estimate.steps == n


def test_a_window_bounds_the_memory_and_a_long_one_changes_nothing() -> None:
    short = measured(2_000, window=5)
    assert short.estimate().steps == 40
    assert len(pickle.dumps(short)) < 5_000
    whole, long = measured(64).estimate(), measured(64, window=1e9).estimate()
    assert (long.low, long.b_simple, long.high) == pytest.approx((whole.low, whole.b_simple, whole.high), rel=1e-6)


def test_a_windowed_estimate_follows_a_drift() -> None:
    rng = np.random.default_rng(4)
    windowed, whole = NoiseScaleMeter(20, window=25), NoiseScaleMeter(20)
    for noise_scale in (100.0, 1_600.0):
        gradients = GaussianGradients(noise_scale).group_means(rng, 300, groups=16, group_size=20)
        for meter in (windowed, whole):
            feed(meter, gradients)
        recent = windowed.estimate()
        assert recent.low < noise_scale < recent.high
    assert whole.estimate().b_simple < 1_000


@given(
    n=st.integers(0, 60),
    window=st.one_of(st.none(), st.floats(1, 12)),
    more=st.integers(1, 60),
    rare=st.integers(1, 5),
)
def test_a_restored_meter_continues_exactly(n: int, window: float | None, more: int, rare: int) -> None:
    rng = np.random.default_rng(n)
    meter = NoiseScaleMeter(7, window=window)

    def continue_with(meter: NoiseScaleMeter, batches: list[Any]) -> None:
        for i, (norms, batch) in enumerate(batches):
            rate = None if i % (rare + 1) else 1e-3 * (i + 1)
            meter.update(norms, batch, example_trace=None if i % rare else 3.0, learning_rate=rate)

    def batches(count: int) -> list[Any]:
        return [(rng.uniform(1, 2, 4), math.nan if rng.random() < 0.1 else 1.0) for _ in range(count)]

    continue_with(meter, batches(n))
    restored = NoiseScaleMeter(7, window=window)
    restored.load_state_dict(json.loads(json.dumps(meter.state_dict(), allow_nan=False)))
    later = [*batches(more), ([1.5, 1.6], 1.2)]
    for both in (meter, restored):
        continue_with(both, later)
    assert meter.state_dict() == restored.state_dict()
    assert comparable(meter.estimate()) == comparable(restored.estimate())


def test_the_state_survives_torch_save_with_weights_only(tmp_path: Path) -> None:
    meter = measured(12, window=3)
    torch.save(meter.state_dict(), tmp_path / "state.pt")
    restored = NoiseScaleMeter(5, window=3)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert comparable(restored.estimate()) == comparable(meter.estimate())


@pytest.mark.parametrize(
    "change", [{"trace_covs": None}, {"trace_covs": [1.0]}, {"batch_sizes": [1.0]}, {"skipped": "x"}]
)
def test_a_foreign_state_is_refused_and_nothing_is_lost(change: dict[str, Any]) -> None:
    meter = measured(12)
    before = meter.state_dict()
    for state in (before | change, {}):
        with pytest.raises(ValueError, match="not the state of a NoiseScaleMeter"):
            meter.load_state_dict(state)
    assert meter.state_dict() == before


@pytest.mark.parametrize("other", [NoiseScaleMeter(6), NoiseScaleMeter(5, window=3)])
def test_a_state_of_another_configuration_is_refused(other: NoiseScaleMeter) -> None:
    meter = measured(12)
    before = meter.state_dict()
    with pytest.raises(ValueError, match=r"this one has 5 and None: load it into a meter made with the same settings"):
        meter.load_state_dict(other.state_dict())
    assert meter.state_dict() == before


def test_a_state_of_version_0_1_is_read() -> None:
    meter, restored = measured(12), NoiseScaleMeter(5)
    state = meter.state_dict() | {"blocks": 20}
    del state["batch_sizes"], state["learning_rates"]
    restored.load_state_dict(state)
    old, new = meter.estimate(), restored.estimate()
    assert (new.low, new.b_simple, new.high, new.steps) == (old.low, old.b_simple, old.high, 12)
    assert math.isnan(new.batch_size)


def test_learning_rate_and_batch_size_stand_beside_the_estimate() -> None:
    meter = NoiseScaleMeter(group_size=5)
    meter.update([3.0, 2.0], 1.5)
    assert math.isnan(meter.estimate().learning_rate)
    meter.update([3.0, 2.0], 1.5, learning_rate=1e-4)
    meter.update([3.0, 2.0, 2.5], 1.5, learning_rate=torch.tensor(1e-2))
    meter.update([3.0, 2.0], 1.5, group_sizes=[5, 4], learning_rate=0.0)
    estimate = meter.estimate()
    assert estimate.learning_rate == pytest.approx(1e-3)
    assert estimate.batch_size == pytest.approx((10 + 10 + 15 + 9) / 4)
    assert "learning rate 0.001, batch size 11" in str(estimate)
    for wrong in (-1e-3, -math.inf):
        with pytest.raises(ValueError, match="learning_rate"):
            meter.update([3.0, 2.0], 1.5, learning_rate=wrong)


def test_effective_examples_are_the_batch_over_the_design_effect() -> None:
    meter = NoiseScaleMeter(group_size=10)
    assert math.isnan(measured(3).estimate().effective_examples)
    meter.update([2.0] * 4, 1.25, example_trace=2.0)  # tr(Sigma) is 10
    estimate = meter.estimate()
    assert (estimate.design_effect, estimate.effective_examples) == pytest.approx((5, 40 / 5))


def test_one_readable_line() -> None:
    common: dict[str, Any] = {"grad_sq_norm": 1.0, "trace_cov": 1.0, "design_effect": 1.0, "skipped": 0}
    known = NoiseScaleEstimate(
        b_simple=811.6, low=640.2, high=1_101.0, steps=200, resolved=True, confidence=0.95, **common
    )
    assert str(known) == "B_simple = 812 (95 %: 640-1,100), 200 measurements"
    unknown = NoiseScaleEstimate(
        b_simple=math.nan, low=3_384, high=math.inf, steps=12, resolved=False, confidence=0.9, **common
    )
    assert str(unknown) == "unresolved, B_simple > 3,400 (90 %), 12 measurements"
    precise = NoiseScaleEstimate(
        b_simple=0.12344, low=0.12321, high=0.12369, steps=10**6, resolved=True, confidence=0.999, **common
    )
    assert str(precise) == "B_simple = 0.1234 (99.9 %: 0.1232-0.1237), 1000000 measurements"
