"""Settings for another number of environments: the rules, there and back, and what was measured beside them."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.agents.config import A2CConfig, AlgorithmConfig, PPOConfig
from rl_scaling.config import ConfigError, to_dict
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, RunConfig, run_config_from_dict
from rl_scaling.domains.rl.translate import beside_measured, expected_ratios, translate
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.estimates import Estimate
from tests.analysis.made_runs import steady_sweep

AGENTS: dict[str, AlgorithmConfig] = {
    "a2c": A2CConfig(network="mlp"),
    "count": PPOConfig(network="mlp"),
    "minibatch": PPOConfig(network="mlp", scaling="minibatch"),
    "ewma": PPOConfig(network="mlp", scaling="ewma"),
}


def run_of(agent: AlgorithmConfig, num_envs: int = 16) -> RunConfig:
    return RunConfig(environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=num_envs), agent=agent, frames=100_000)


@given(
    agent=st.sampled_from(list(AGENTS.values())),
    rate=st.integers(1, 99_999).map(lambda digits: digits * 1e-7),
    few=st.integers(1, 64).map(lambda half: 2 * half),
    many=st.integers(1, 512).map(lambda half: 2 * half),
)
def test_there_and_back_is_where_one_was(agent: AlgorithmConfig, rate: float, few: int, many: int) -> None:
    rate = float(f"{rate:.6g}")
    before = run_of(dataclasses.replace(agent, learning_rate=rate), few)
    there = translate(before, many).after
    assert run_config_from_dict(json.loads(json.dumps(to_dict(there)))) == there
    back = translate(there, few).after
    assert (back, back.run_id) == (before, before.run_id)


@pytest.mark.parametrize(
    ("family", "ratio"),
    [
        ("a2c", ((1 + 1000 / 80) / (1 + 1000 / 320)) ** 0.5),
        ("count", ((1 + 1000 / 512) / (1 + 1000 / 2048)) ** 0.5),
        ("minibatch", 1.0),
        ("ewma", 2.0),
    ],
)
def test_the_learning_rate_follows_the_rule_of_each(family: str, ratio: float) -> None:
    before = run_of(AGENTS[family])
    translation = translate(before, 64)
    assert translation.rate_ratio == pytest.approx(ratio)
    assert translation.after.learning_rate == pytest.approx(before.learning_rate * ratio)
    rates = next(setting for setting in translation.settings if setting.name == "learning_rate")
    assert rates.how == ("keep" if family == "minibatch" else "change")
    assert rates.why
    unchanged = dataclasses.replace(translation.after.agent, learning_rate=before.learning_rate)
    assert (unchanged, translation.after.frames) == (before.agent, before.frames)


def test_what_follows_is_said() -> None:
    def said(family: str) -> dict[str, tuple[float, float]]:
        return {s.name: (s.before, s.after) for s in translate(run_of(AGENTS[family]), 64).settings}

    assert said("a2c")["batch"] == (80, 320)
    assert said("minibatch")["batch"] == (2048, 8192)
    assert said("minibatch")["minibatches of an epoch"] == (8, 32)
    assert said("count")["batch"] == said("ewma")["batch"] == (512, 2048)
    few, many = said("ewma")["proximal_decay in force"]
    assert few / (1 - few) == pytest.approx(0.889 / 0.111 / 2)  # 16 environments are twice the reference
    assert many / (1 - many) == pytest.approx(0.889 / 0.111 / 8)
    assert all(setting[0] == setting[1] for setting in (said("a2c")["rmsprop_decay"], said("count")["minibatches"]))


def test_a_run_that_sets_its_batch_by_itself_and_one_of_no_whole_batches_are_refused() -> None:
    adaptive = dataclasses.replace(run_of(AGENTS["a2c"]), adaptive=AdaptiveBatchConfig(exchange_rate=300))
    with pytest.raises(ConfigError, match="an adaptive batch changes the number of environments by itself"):
        translate(adaptive, 64)
    with pytest.raises(ConfigError, match="7 environments of 128 steps do not divide into minibatches of 256"):
        translate(run_of(AGENTS["minibatch"]), 7)


@given(turn=st.floats(1, 1e5), before=st.integers(1, 10_000), after=st.integers(1, 10_000))
def test_expected_ratios_are_those_of_the_trade_off(turn: float, before: int, after: int) -> None:
    """Equation 2.11 of McCandlish et al. 2018, with E = B S."""
    frames, updates = expected_ratios(Estimate(turn, turn / 2, turn * 2), before, after)
    examples = [1 + size / turn for size in (before, after)]
    steps = [1 + turn / size for size in (before, after)]
    assert frames.value == pytest.approx(examples[1] / examples[0])
    assert updates.value == pytest.approx(steps[1] / steps[0])
    for ratio in (frames, updates):
        assert ratio.low <= ratio.value * (1 + 1e-12)
        assert ratio.value <= ratio.high * (1 + 1e-12)


def test_an_unresolved_critical_batch_bounds_what_is_expected() -> None:
    frames, updates = expected_ratios(Estimate(math.nan, 300.0, math.inf), 100, 500)
    assert math.isnan(frames.value)
    assert (frames.low, frames.high) == (1.0, 2.0)
    assert (updates.low, updates.high) == (0.2, 0.4)


def test_what_a_sweep_found_stands_beside_the_rule() -> None:
    """A sweep with a critical batch size of 200 frames; the best of its two rates is the larger one at 320 frames."""

    def updates_per_point(size: int, rate: float, seed: int) -> float:
        best = 2e-3 if size == 320 else 1e-3
        return 100 * (1 + 200 / size) * (1.0 if rate == best else 1.5)

    translation = translate(run_of(A2CConfig(network="mlp", learning_rate=1e-3)), 64)
    runs = steady_sweep(updates_per_point, batch_sizes=[20, 80, 320, 1280], rates=[1e-3, 2e-3])
    table = beside_measured(translation, runs.assign(task=translation.before.task), [5.0], horizon=1.0, confidence=0.95)
    (row,) = table.to_dict("records")
    assert (row["rate_before"], row["rate_after"]) == (1e-3, 2e-3)
    assert row["rate_by_rule"] == pytest.approx(1e-3 * translation.rate_ratio)
    assert row["critical_batch"] == pytest.approx(200, rel=0.05)
    measured = row["frames_after"] / row["frames_before"]
    assert measured == pytest.approx((1 + 320 / 200) / (1 + 80 / 200), rel=0.02)
    assert row["frames_expected"] == pytest.approx(measured, rel=0.03)
    assert row["updates_expected"] == pytest.approx(row["updates_after"] / row["updates_before"], rel=0.03)
    assert beside_measured(translation, runs, [5.0], horizon=1.0, confidence=0.95).empty
