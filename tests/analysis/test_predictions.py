"""How far predictions were off: what is said of a task rests on the others, and intervals cover what comes next."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rl_scaling.analysis.advise import predict_tasks
from rl_scaling.analysis.noise_path import NoisePath
from rl_scaling.analysis.predictions import (
    TRAINED,
    PredictedTask,
    corrected_prediction,
    error_for,
    error_of,
    leave_one_out,
    shipped,
    shipped_tasks,
    summary,
)
from rl_scaling.cli.analyse import load_and_fit
from rl_scaling.estimates import Estimate

RESULTS = Path(__file__).parents[2] / "results"


def task(
    name: str,
    error: float,
    domain: str = "supervised",
    algorithm: str = "sgd",
    *,
    predicted: Estimate = Estimate(100.0, 80.0, 125.0),  # noqa: B008  frozen
    path: NoisePath | None = None,
) -> PredictedTask:
    """Predicted to be 100, and in truth exp(error) times that."""
    turn = 100 * math.exp(error)
    swept = Estimate(turn, turn / 2, turn * 2)
    return PredictedTask(name, domain, algorithm, "examples", 1.0, name, "training", swept, predicted, path)


def tasks(count: int, seed: int = 0, domain: str = "supervised", algorithm: str = "sgd") -> list[PredictedTask]:
    drawn = np.random.default_rng(seed).normal(0.5, 0.4, count)
    return [task(f"{algorithm} {i}", float(y), domain, algorithm) for i, y in enumerate(drawn)]


def by_task(known: list[PredictedTask]) -> dict[str, Any]:
    return {str(row["task"]): row for row in leave_one_out(known).to_dict("records")}


def test_the_interval_is_that_of_students_t_where_it_covers() -> None:
    y = np.array([0.1, -0.2, 0.3, 0.0, 0.2, -0.1, 0.15, -0.25])
    error = error_of(y.tolist())
    expected = stats.t.interval(0.95, 7, y.mean(), y.std(ddof=1) * math.sqrt(1 + 1 / 8))
    assert [error.mean - math.log(error.factor), error.mean + math.log(error.factor)] == pytest.approx(expected)
    draws = np.log(error.draws(np.random.default_rng(0), 100_000))
    assert np.quantile(draws, [0.025, 0.975]) == pytest.approx(expected, abs=0.02)


def test_one_that_is_far_off_widens_until_the_others_would_have_held_it() -> None:
    y = [0.0, 0.01, -0.01, 0.02, -0.02, 0.01, 5.0]
    error, others = error_of(y), error_of(y[:-1])
    plain = stats.t.ppf(0.975, 6) * np.std(y, ddof=1) * math.sqrt(1 + 1 / 7)
    missed = (5.0 - others.mean) / math.log(others.factor)
    assert math.log(error.factor) == pytest.approx(missed * plain, rel=1e-6)


@pytest.mark.parametrize("draw", ["normal", "skewed"])
def test_a_further_task_lies_inside(draw: str) -> None:
    """1,000 repetitions: 3 standard errors of a coverage of 95 % are 2 %; being too wide is no fault."""
    rng = np.random.default_rng(0)
    made = rng.normal(0.4, 0.6, (1000, 11)) if draw == "normal" else rng.exponential(0.5, (1000, 11))
    held = 0
    for *known, further in made.tolist():
        error = error_of(known)
        held += abs(further - error.mean) <= math.log(error.factor)
    assert held >= 930


def test_nothing_rests_on_the_task_itself() -> None:
    known = [*tasks(6), task("far", 9.0)]
    far = by_task(known)["far"]
    assert far["others"] == 6
    without = error_of([one.log_error for one in known[:-1]])
    assert far["corrected"] == pytest.approx(100 * without.bias)
    assert not far["held"]
    assert not far["within"]
    changed = by_task([*known[:-1], task("far", -9.0)])["far"]
    assert changed["corrected_high"] == far["corrected_high"]


def test_the_most_alike_of_which_there_are_enough() -> None:
    sgd, adam, games = tasks(6), tasks(3, 1, algorithm="adam"), tasks(3, 2, domain="rl", algorithm="a2c")
    model = [task("NQM", 7.0, "nqm", "sgd")]
    known = [*sgd, *adam, *games, *model]

    def kind(**of: str) -> tuple[str, int]:
        names = {"task": "new", "domain": "supervised", "algorithm": "sgd", **of}
        error = error_for(known, task=names["task"], domain=names["domain"], algorithm=names["algorithm"])
        assert error is not None
        return error.kind, error.tasks

    assert kind() == ("tasks of sgd", 6)
    assert kind(task="sgd 0") == ("tasks of sgd", 5)
    assert kind(algorithm="adam") == ("tasks of supervised learning", 9)
    assert kind(domain="rl", algorithm="ppo") == ("tasks of all domains", 12), "the model is no training"
    assert kind(domain="nqm") == ("tasks of all domains", 13)
    assert error_for(known[:4], task="new", domain="rl", algorithm="a2c") is None
    (row,) = leave_one_out([sgd[0]]).to_dict("records")
    assert (row["others"], row["corrected"]) == (0, 100.0)


def test_what_is_open_is_no_evidence_and_stays_open() -> None:
    bound = task("open", 0.0, predicted=Estimate(math.nan, 30.0, math.inf))
    found = by_task([*tasks(6), bound])
    assert math.isnan(found["open"]["factor"])
    assert found["open"]["held"], "100 is more than 30"
    assert found["sgd 0"]["others"] == 5
    counts = summary(leave_one_out([*tasks(6), bound]))[TRAINED]
    assert (counts["tasks"], counts["predicted"]) == (7, 6)


def test_counts_against_a_naive_version() -> None:
    known = tasks(9)
    counts = summary(leave_one_out(known))[TRAINED]
    y = [one.log_error for one in known]
    within = held = 0
    for place, own in enumerate(y):
        error = error_of(y[:place] + y[place + 1 :])
        within += abs(own - error.mean) <= math.log(2)
        held += abs(own - error.mean) <= math.hypot(math.log(error.factor), math.log(1.25))
    assert (counts["within"], counts["held"]) == (within, held)
    assert counts["within_before"] == sum(abs(own) <= math.log(2) for own in y)
    assert counts["held_before"] == sum(abs(own) <= math.log(1.25) for own in y)
    assert counts["bias"] == pytest.approx(math.exp(np.mean(y)))


def test_a_path_is_drawn_with_both_errors() -> None:
    """N = 100 known to 10 %: as good as the formula for what was read from a file."""
    path = NoisePath(np.ones((1, 1)), np.full((1, 1), 1e6), np.array([0.01]), np.array([1e-3]), np.array([1e9]))
    own = Estimate(100.0, 100 / 1.2, 100 * 1.24)
    drawn, read = task("a", 0.0, predicted=own, path=path), task("a", 0.0, predicted=own)
    error = error_of([one.log_error for one in tasks(30)])
    found, formula = (corrected_prediction(one, error, confidence=0.95) for one in (drawn, read))
    assert found.value == pytest.approx(100 * error.bias)
    assert [found.low, found.high] == pytest.approx([formula.low, formula.high], rel=0.05)


def test_tasks_are_read_back() -> None:
    for one in (task("a", 0.25), task("b", 0.0, predicted=Estimate(math.nan, 30.0, math.inf))):
        again = PredictedTask.from_plain(one.to_plain())
        assert again.to_plain() == one.to_plain()
        assert again.log_error == pytest.approx(one.log_error, rel=1e-4, nan_ok=True)


def test_the_shipped_tasks_are_those_of_the_results() -> None:
    """`rl-scaling advise --table results --json` wrote them; a slow test compares them all."""
    names = {one.task for one in shipped_tasks()}
    assert len(names) == len(shipped_tasks()) >= 12
    compare(RESULTS / "breakout-a2c")


@pytest.mark.slow
def test_all_shipped_tasks_are_those_of_the_results() -> None:
    known = compare(RESULTS)
    assert len(known) == len(shipped_tasks())
    counts = summary(leave_one_out(known))[TRAINED]
    assert counts == pytest.approx(shipped()["summary"][TRAINED], rel=1e-3)


def compare(folder: Path) -> list[PredictedTask]:
    runs, fit = load_and_fit((folder,))
    known = predict_tasks(runs, fit.fits)
    kept = {one.task: one.to_plain() for one in shipped_tasks()}
    for one in known:
        for name, value in one.to_plain().items():
            there = kept[one.task][name]
            assert value == (pytest.approx(there, rel=1e-4) if isinstance(there, float) else there)
    return known


def test_what_the_documentation_says_of_the_aims() -> None:
    """Intervals hold 90 % of the swept values of what is trained; a factor of 2 holds for fewer tasks than aimed at."""
    counts = shipped()["summary"][TRAINED]
    assert counts["held"] >= 0.9 * counts["tasks"]
    assert counts["within"] >= 0.6 * counts["tasks"]
