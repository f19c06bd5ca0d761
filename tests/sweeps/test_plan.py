from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.agents.config import A2CConfig
from rl_scaling.cli.adaptive import adaptive_between
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.sweeps.plan import LearningRates, SweepPlan

BASE = RunConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1"), agent=A2CConfig(network="mlp"), frames=1_000, seed=0
)


def plan(**changes: Any) -> SweepPlan:
    return SweepPlan(**{"base": BASE, "num_envs": (4, 8), "goals": (50.0,), **changes})


def test_trials_are_the_grid_each_once() -> None:
    trials = plan(seeds=(0, 1), learning_rates=LearningRates(count=3)).trials()
    assert len(trials) == 2 * 2 * 3
    assert len({t.run_id for t in trials}) == len(trials)
    assert {(t.environment.num_envs, t.seed) for t in trials} == {(4, 0), (4, 1), (8, 0), (8, 1)}


@given(batch=st.integers(1, 10**7), power=st.floats(0.5, 1), turn=st.floats(1, 1e6))
def test_grid_is_centred_by_a3(batch: int, power: float, turn: float) -> None:
    rates = LearningRates(turn=turn, power=power, count=3, spacing=3)
    low, centre, high = rates.grid(batch)
    # A.3 with the maximal rate that makes it pass through the reference.
    maximal = rates.reference_rate * (1 + turn / rates.reference_batch) ** power
    assert centre == pytest.approx(maximal / (1 + turn / batch) ** power, rel=6e-3)
    assert high / centre == pytest.approx(3, rel=2e-2)
    assert centre / low == pytest.approx(3, rel=2e-2)


def test_grid_passes_through_the_reference_and_levels_off() -> None:
    rates = LearningRates(count=1)
    assert rates.grid(rates.reference_batch) == [rates.reference_rate]
    assert rates.centre(10**9) == pytest.approx(rates.centre(10**8), rel=1e-4)


def test_grid_grows_only_beyond_the_edge_with_the_best_rate() -> None:
    rates = LearningRates(count=3, spacing=2, max_extensions=2)
    low, centre, high = rates.grid(80)
    assert rates.beyond([low, centre, high], centre, 80) is None
    up = rates.beyond([low, centre, high], high, 80)
    assert up == pytest.approx(2 * high, rel=1e-2)
    assert up is not None
    assert rates.beyond([low, centre, high, up], up, 80) == pytest.approx(4 * high, rel=1e-2)
    assert rates.beyond([low, centre, high, up, 2 * up], 2 * up, 80) is None, "two extensions on a side are enough"
    assert rates.beyond([low, centre, high], low, 80) == pytest.approx(low / 2, rel=1e-2)


def test_plan_survives_the_store() -> None:
    first = plan(seeds=(0, 3), best_seeds=(1, 2), learning_rates=LearningRates(fixed=(1e-3, 1e-4)))
    assert SweepPlan.from_dict(first.to_dict()) == first


def test_plans_without_further_seeds_are_read() -> None:
    older = plan().to_dict()
    del older["best_seeds"]
    assert SweepPlan.from_dict(older) == plan()


def test_adaptive_batches_come_last_and_begin_small() -> None:
    adaptive = adaptive_between((4, 8), 200)
    whole = plan(adaptive=(adaptive,), learning_rates=LearningRates(count=2), seeds=(0, 1))
    assert SweepPlan.from_dict(whole.to_dict()) == whole
    fixed, last = whole.trials()[:8], whole.trials()[8:]
    assert fixed == plan(learning_rates=LearningRates(count=2), seeds=(0, 1)).trials()
    assert [(t.environment.num_envs, t.adaptive) for t in last] == [(4, adaptive)] * 4
    assert [t.agent.learning_rate for t in last] == 2 * LearningRates(count=2).grid(20)
    before = {name: value for name, value in whole.to_dict().items() if name != "adaptive"}
    assert SweepPlan.from_dict(before).adaptive == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": (1e-3, -1.0)}, "learning rate -1.0 in the grid: give positive numbers"),
        ({"reference_rate": float("nan")}, "learning rate nan"),
        ({"count": 0}, "count of 1 or more"),
        ({"spacing": 1.0}, "spacing above 1"),
    ],
)
def test_bad_grids_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LearningRates(**options)


def test_bad_plans_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        plan(num_envs=())
    with pytest.raises(ConfigError, match="num_envs 2 or more"):
        plan(num_envs=(1,)).trials()
    with pytest.raises(ConfigError, match="seed is -1"):
        plan(best_seeds=(-1,))
    with pytest.raises(ConfigError, match="not a sweep's plan"):
        SweepPlan.from_dict({"base": {}})
