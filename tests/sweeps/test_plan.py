"""A plan is data: it survives the store, those of older versions are read, and what cannot be meant is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rl_scaling.config import ConfigError, LearningRates, parse, to_dict
from rl_scaling.domains.rl.config import AdaptiveBatchConfig
from rl_scaling.store import Store, StoreError
from rl_scaling.sweeps.plan import Search, SweepPlan, kept_goals, read_plan, save_plan, spread
from tests.sweeps.plans import DOMAINS, cartpole, digits, tiny

ADAPTIVE = AdaptiveBatchConfig(exchange_rate=200, min_envs=4, max_envs=8, group_envs=4)


@pytest.mark.parametrize("domain", DOMAINS)
def test_plan_survives_the_store(domain: str, tmp_path: Path) -> None:
    first = tiny(domain, seeds=(0, 3), best_seeds=(1, 2), search=Search(trials=5))
    assert parse(SweepPlan, json.loads(json.dumps(to_dict(first))), "sweep's plan") == first
    save_plan(Store(tmp_path), first)
    assert read_plan(Store(tmp_path)) == first
    assert kept_goals(Store(tmp_path)) == first.goals


def test_a_plan_with_adaptive_batches_survives_too(tmp_path: Path) -> None:
    plan = tiny("rl", cartpole(adaptive=(ADAPTIVE,)))
    save_plan(Store(tmp_path), plan)
    assert read_plan(Store(tmp_path)) == plan


def older(**changes: Any) -> dict[str, Any]:
    """As schema 2 kept a plan of `cartpole`."""
    task = cartpole()
    rates, base = to_dict(task.learning_rates), to_dict(task.base)
    return {"base": base, "num_envs": [4, 8], "learning_rates": rates, "goals": [20.0], "seeds": [0], **changes}


@pytest.mark.parametrize("more", [{}, {"best_seeds": [1]}, {"adaptive": [to_dict(ADAPTIVE)]}])
def test_plans_of_older_versions_are_read(more: dict[str, Any], tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_plan(older(**more))
    task = cartpole(adaptive=(ADAPTIVE,) if "adaptive" in more else ())
    assert read_plan(store) == SweepPlan(tasks=(task,), best_seeds=tuple(more.get("best_seeds", ())))
    assert kept_goals(store) == {task.task: (20.0,)}


def test_goals_of_earlier_sweeps_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert (kept_goals(store), read_plan(store)) == ({}, None)
    save_plan(store, tiny("supervised", digits(goals=(1.0, 0.5))))
    goals = save_plan(store, tiny("supervised", digits(goals=(0.7, 0.5))))
    assert goals == kept_goals(store) == {"digits-mlp sgd": (0.5, 0.7, 1.0)}


def test_goals_alone_are_no_plan_and_old_labels_are_renamed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_plan({"goals_by_task": {"digits-mlp adam second_moment=0.999": [0.5]}})
    assert read_plan(store) is None
    assert kept_goals(store) == {"digits-mlp adam": (0.5,)}


@pytest.mark.parametrize(
    "plain",
    [{"base": {}}, {"goals_by_task": {"a": ["b"]}, "sweep": {}}, {"goals_by_task": 3, "sweep": {"tasks": 1}}, {}],
)
def test_a_damaged_plan_is_one_line_that_names_its_file(plain: dict[str, Any], tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_plan(plain)
    with pytest.raises(StoreError, match=r"sweep\.json: .*; move it away to continue without it") as caught:
        read_plan(store)
    assert "\n" not in str(caught.value)


def test_what_an_old_plan_lacks_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_plan({"base": {}})
    with pytest.raises(StoreError, match=r"sweep\.json: no field 'agent'; move it away"):
        read_plan(store)


def test_every_batch_size_has_its_rates_once_small_ones_first() -> None:
    rates = LearningRates(reference_rate=1e-3, reference_batch=80, turn=80.0, power=0.5, fixed=(2e-3, 1e-3))
    assert spread(rates, [40, 20, 40]) == [(20, 1e-3), (20, 2e-3), (40, 1e-3), (40, 2e-3)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cartpole(batch_sizes=()), "no batch sizes: give at least one"),
        (lambda: tiny("rl", best_seeds=(-1,)), "seed is -1: give 0 or more"),
        (lambda: tiny("rl", seeds=()), "at least one task and one seed"),
        (lambda: SweepPlan(tasks=()), "at least one task and one seed"),
        (lambda: tiny("supervised", digits(goals=(float("nan"),))), "is no number to reach"),
        (lambda: tiny("supervised", digits(goals=()), search=Search()), "a search is for goals"),
        (lambda: Search(trials=0), "0 trials, width 64: give 1 or more, and a width above 1"),
        (lambda: Search(width=1.0), "32 trials, width 1: give"),
        (lambda: Search(width=float("nan")), "width nan"),
        (lambda: parse(SweepPlan, {"base": {}}, "sweep's plan"), "not a sweep's plan: "),
        (
            lambda: parse(SweepPlan, {"tasks": [{"kind": "chess"}]}, "sweep's plan"),
            "not a sweep's plan: .*no domain 'chess': rl, supervised, nqm",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_one_environment_gives_no_groups_to_compare() -> None:
    task = cartpole(batch_sizes=(5,))
    with pytest.raises(ConfigError, match="num_envs 2 or more"):
        task.config(5, 1e-3, 0)
