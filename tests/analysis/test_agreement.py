"""Agreement of two batch sizes over tasks: known answers, invariances, coverage of its interval."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis.agreement import agreement, domains_of, pairs_of
from rl_scaling.estimates import Estimate
from tests.analysis.made_runs import made_run


def pairs(tasks: list[str], simple: list[float], crit: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"task": tasks, "noise_scale_mean": simple, "critical_batch": crit})


def test_a_perfect_prediction() -> None:
    found = agreement(pairs(["a", "b", "c"], [1, 10, 100], [1, 10, 100]))
    assert found.tasks == 3
    assert found.factor == Estimate(1.0, 1.0, 1.0)
    assert found.bias == Estimate(1.0, 1.0, 1.0)
    assert found.correlation.value == pytest.approx(1)


def test_against_numpy() -> None:
    rng = np.random.default_rng(3)
    simple, crit = np.exp(rng.normal(4, 2, (2, 12)))
    found = agreement(pairs(list("aabbccddeeff"), list(simple), list(crit)))
    errors = np.log(crit / simple)
    assert found.correlation.value == pytest.approx(np.corrcoef(np.log(simple), np.log(crit))[0, 1])
    assert found.factor.value == pytest.approx(math.exp(np.sqrt(np.mean(errors**2))))
    assert found.bias.value == pytest.approx(math.exp(errors.mean()))
    for estimate in (found.correlation, found.factor, found.bias):
        assert estimate.low <= estimate.value <= estimate.high


def test_few_tasks_have_no_interval() -> None:
    found = agreement(pairs(["a", "a", "b"], [1, 2, 3], [2, 4, 6]))
    assert found.factor.value == pytest.approx(2)
    assert math.isnan(found.factor.low)
    empty = agreement(pairs([], [], []))
    assert empty.pairs == 0
    assert empty.tasks == 0
    assert math.isnan(empty.factor.value)


def test_equal_batch_sizes_have_no_correlation() -> None:
    assert math.isnan(agreement(pairs(["a", "b", "c"], [30, 30, 30], [10, 20, 30])).correlation.value)


@given(st.floats(1e-3, 1e3), st.integers(0, 100))
def test_the_unit_does_not_matter(unit: float, seed: int) -> None:
    simple, crit = np.exp(np.random.default_rng(seed).normal(3, 1, (2, 6)))
    one, other = (agreement(pairs(list("abcdef"), list(k * simple), list(k * crit)), draws=200) for k in (1.0, unit))
    for name in ("correlation", "factor", "bias"):
        found, same = (list(getattr(x, name).columns(name).values()) for x in (one, other))
        np.testing.assert_allclose(found, same, rtol=1e-6)


@pytest.mark.statistical
def test_the_interval_of_the_bias_covers() -> None:
    """300 repetitions, 12 tasks of 3 goals that share an error: 95 % nominal; 0.85 is 8 standard errors below.

    Percentile intervals of 12 clusters are known to be a little short; drawing goals instead of tasks covers far less.
    """
    rng = np.random.default_rng(11)
    tasks = np.repeat(np.arange(12), 3)
    covered = 0
    for _ in range(300):
        error = rng.normal(0.3, 0.5, 12)[tasks] + rng.normal(0, 0.1, 36)
        simple = np.exp(rng.normal(4, 1, 36))
        found = agreement(pairs([str(t) for t in tasks], list(simple), list(simple * np.exp(error))), draws=400)
        covered += found.bias.low <= math.exp(0.3) <= found.bias.high
    assert covered / 300 >= 0.85


def test_domains() -> None:
    domains = {"Pong a2c": "rl", "NQM sgd": "nqm", "digits-mlp sgd": "supervised"}
    runs = pd.concat([made_run(8, 0.1, 0, updates=[1.0], task=task, domain=of) for task, of in domains.items()])
    assert domains_of(runs) == {
        "Pong a2c": "Reinforcement learning",
        "NQM sgd": "Noisy quadratic model",
        "digits-mlp sgd": "Supervised learning",
    }


def test_pairs_leave_out_what_is_not_known() -> None:
    fits = pairs(list("abcde"), [10, math.nan, 5, math.inf, 10], [20, 30, math.nan, 10, 20]).assign(goal=1.0)
    wide = fits["task"] == "e"
    for name in ("noise_scale_mean", "critical_batch"):
        fits[f"{name}_low"] = fits[name] / 2
        fits[f"{name}_high"] = fits[name] * (1 + 60 * wide)
    found = pairs_of(fits, dict.fromkeys("abcde", "Supervised learning"))
    assert found["task"].tolist() == ["a"]
    assert found["domain"].tolist() == ["Supervised learning"]
