"""A.3 fitted to best learning rates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis.learning_rates import (
    UNLIMITED,
    against_sgd,
    best_rates_of_budgets,
    final_values,
    rate_curve,
    turns,
    unlimited,
)
from tests.analysis.made_runs import made_run

SIZES = 4.0 ** np.arange(8)


@given(st.floats(2, 5e3), st.floats(1e-4, 10), st.sampled_from([0.5, 0.75, 1.0]))
def test_found_again(turn: float, limit: float, power: float) -> None:
    curve = rate_curve(SIZES, limit / (1 + turn / SIZES) ** power, power)
    assert curve is not None
    assert curve.turn.value == pytest.approx(turn, rel=1e-2)
    assert curve.limit == pytest.approx(limit, rel=1e-2)
    assert curve.turn.low < turn < curve.turn.high
    np.testing.assert_allclose(curve(SIZES), limit / (1 + turn / SIZES) ** power, rtol=0.01)


def test_no_bend() -> None:
    linear = rate_curve(SIZES, 1e-3 * SIZES)
    flat = rate_curve(SIZES, np.full(8, 0.1))
    assert linear is not None
    assert flat is not None
    assert linear.turn.value == linear.turn.high == math.inf
    assert flat.turn.value == flat.turn.low == 0
    np.testing.assert_allclose(linear(SIZES), 1e-3 * SIZES, rtol=0.02)


def test_too_few_and_bad_numbers() -> None:
    assert rate_curve([8, 8, 16], [0.1, 0.2, 0.3]) is None
    with pytest.raises(ValueError, match="positive"):
        rate_curve([1, 2, 0], [0.1, 0.1, 0.1])


@pytest.mark.statistical
def test_the_interval_covers() -> None:
    """1,000 repetitions, rates rounded to a grid a factor 2 apart: 95 % nominal; 0.92 is 4 standard errors below."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        exact = 0.1 / (1 + 32 / SIZES)
        rounded = 0.1 * 2.0 ** (np.round(np.log2(exact / 0.1) + rng.uniform()) - rng.uniform(size=1))
        curve = rate_curve(SIZES, rounded)
        assert curve is not None
        covered += curve.turn.low <= 32 <= curve.turn.high
    assert covered / 1000 > 0.92


RATES = [2.0**power for power in range(-12, 6)]


def ended(batch: int, rate: float, seed: int, loss: float, accuracy: float, **more: Any) -> pd.DataFrame:
    optimizer, (amount, unit) = more.pop("optimizer", "sgd"), more.pop("budget", (20.0, "epochs"))
    named = {"problem": "d-m", "algorithm": optimizer, "variant": "schedule=halving"}
    more |= named | {"budget_amount": amount, "budget_unit": unit}
    task = f"d-m {optimizer} schedule=halving budget={amount:g} {unit}"
    run = made_run(batch, rate, seed, updates=np.array([10.0, 20.0]), task=task, **more)
    values = {"training_loss": [9.0, loss], "validation_loss": [9.0, 2 * loss], "validation_accuracy": [0.0, accuracy]}
    momentum = 0.9 if optimizer == "momentum" else 0.0
    config = {"optimizer.name": optimizer}
    return run.assign(
        unit="examples", quantity="validation_loss", **values, **config, **{"optimizer.momentum": momentum}
    )


def swept(turn: float, batches: list[int], **more: Any) -> pd.DataFrame:
    """The best rate is near 1 / (1 + turn / B) by training loss, and a grid step higher by accuracy."""
    runs = []
    for batch in batches:
        best = np.log2(1 / (1 + turn / batch))
        for rate in RATES:
            off = np.log2(rate) - best
            runs.append(ended(batch, rate, 0, 1 + off**2, 0.9 - (off - 1) ** 2 / 1000, **more))
    return pd.concat(runs, ignore_index=True)


def test_the_best_rate_is_found_for_each_quantity_and_the_turn_with_them() -> None:
    best = best_rates_of_budgets(swept(64, [4, 16, 64, 256, 1024]))
    by = best.set_index(["quantity", "batch_size"])["learning_rate"]
    assert [by["training_loss", size] for size in (4, 16, 64, 256, 1024)] == [2**-4, 0.25, 0.5, 1.0, 1.0]
    assert by["validation_accuracy", 64] == 1.0
    found = turns(best).set_index("quantity")
    assert found["turn"]["training_loss"] == pytest.approx(64, rel=0.5)
    assert found["turn_low"]["training_loss"] < 64 < found["turn_high"]["training_loss"]


@pytest.mark.parametrize(("turn", "expected"), [(1e-3, 0.0), (1e6, math.inf)])
def test_a_turn_beyond_the_batch_sizes_is_called_that(turn: float, expected: float) -> None:
    runs = swept(turn, [4, 16, 64]) if turn < 1 else swept(turn, [1024, 4096, 16384])
    (row,) = turns(best_rates_of_budgets(runs)).query("quantity == 'training_loss'").to_dict("records")
    assert row["turn"] == expected
    assert row["turn_low" if expected == 0 else "turn_high"] == expected


def test_seeds_are_averaged_and_a_rate_that_diverges_with_one_of_them_does_not_count() -> None:
    runs = pd.concat(
        [
            *(ended(8, 0.1, seed, loss, 0.5) for seed, loss in ((0, 1.0), (1, 3.0))),
            *(ended(8, 0.2, seed, loss, 0.4) for seed, loss in ((0, 1.8), (1, 1.8))),
            ended(8, 0.4, 0, 0.1, 0.9),
            ended(8, 0.4, 1, 0.1, 0.9, status="diverged"),
            ended(8, 0.8, 0, 0.0, 1.0, status="running"),
        ],
        ignore_index=True,
    )
    assert len(final_values(runs)) == 6
    row = best_rates_of_budgets(runs).set_index("quantity").loc["training_loss"]
    assert (row["learning_rate"], row["value"], row["seeds"], row["at_edge"]) == (0.2, 1.8, 2, "")
    row = best_rates_of_budgets(runs).set_index("quantity").loc["validation_accuracy"]
    assert (row["learning_rate"], row["at_edge"]) == (0.1, "low")
    worse = pd.concat([ended(8, 0.1, seed, loss, 0.5) for seed, loss in ((0, 1.0), (1, 3.0))])
    wide = pd.concat([worse, *(ended(8, 0.2, seed, 2.5, 0.4) for seed in (0, 1))], ignore_index=True)
    row = best_rates_of_budgets(wide).set_index("quantity").loc["training_loss"]
    assert (row["value"], row["standard_error"]) == (2.0, pytest.approx(1.0))
    assert (row["rate_low"], row["rate_high"]) == (0.1, 0.2)


def test_a_run_that_differs_in_what_it_measured_alone_is_no_further_seed() -> None:
    first, again, other = (
        ended(8, 0.1, 0, 1.0, 0.5),
        ended(8, 0.1, 0, 1.0, 0.5, run_id="again"),
        ended(8, 0.1, 1, 3.0, 0.5),
    )
    once, twice = (best_rates_of_budgets(pd.concat(runs)) for runs in ([first, other], [first, again, other]))
    pd.testing.assert_frame_equal(once, twice)


def test_momentum_is_compared_by_effective_rates() -> None:
    runs = pd.concat([swept(64, [4, 256]), swept(64, [4, 256], optimizer="momentum")], ignore_index=True)
    runs.loc[(runs["optimizer.name"] == "momentum") & (runs["batch_size"] == 256), "training_loss"] -= 0.5
    table = against_sgd(best_rates_of_budgets(runs)).query("quantity == 'training_loss'").set_index("batch_size")
    assert table["better"].to_dict() == pytest.approx({4: 0.0, 256: 0.5})
    assert table["rate_ratio"].to_list() == pytest.approx([10, 10])


def test_unlimited_is_the_best_of_the_epochs_and_says_when_more_might_be_better() -> None:
    losses = {5: (3.0, 0.6), 10: (2.0, 0.8), 20: (1.0, 0.7)}
    budgets = [ended(8, 0.1, 0, *pair, budget=(epochs, "epochs")) for epochs, pair in losses.items()]
    runs = pd.concat([*budgets, ended(8, 0.1, 0, 0.0, 1.0, budget=(99.0, "steps"))], ignore_index=True)
    table = unlimited(best_rates_of_budgets(runs)).set_index("quantity")
    assert set(table["budget"]) == {UNLIMITED}
    found = {name: (row["epochs"], row["value"], row["longest"]) for name, row in table.iterrows()}
    assert (found["training_loss"], found["validation_accuracy"]) == ((20, 1.0, True), (10, 0.8, False))


def test_runs_without_a_budget_are_passed_over() -> None:
    runs = made_run(8, 0.1, 0, updates=np.array([1.0]))
    assert best_rates_of_budgets(runs).empty
    assert unlimited(best_rates_of_budgets(runs)).empty
    constant = ended(8, 0.1, 0, 1.0, 0.5).assign(budget_unit="")
    assert best_rates_of_budgets(constant).empty
