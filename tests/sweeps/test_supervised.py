"""The grid of supervised sweeps grows where its best learning rate lies on an edge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import AdaptiveExamplesConfig, Budget
from rl_scaling.store import Store
from rl_scaling.sweeps.supervised import SupervisedGrid, run_cell

EXAMPLES = 1200


@pytest.mark.parametrize("goal", [{"targets": (1.9,)}, {"budgets": (Budget(30, "steps"),)}])
def test_a_rate_is_added_beyond_the_edge_that_is_best(tmp_path: Path, goal: dict[str, tuple[object, ...]]) -> None:
    grid = SupervisedGrid(
        task="digits-mlp",
        optimizers=("sgd", "sgd+ema"),
        batch_sizes=(32,),
        rates=2,
        spacing=4.0,
        extensions=1,
        seeds=(0,),
        epochs=1,
        updates=60,
        **goal,  # pyright: ignore[reportArgumentType]
    )
    cells = grid.cells(EXAMPLES)
    assert [cell[0].optimizer.label for cell in cells] == ["sgd", "sgd+ema"]
    run_cell(tmp_path, cells[0], 1.9, 100)
    tried = [config.learning_rate for config in cells[0]]
    (added,) = grid.extended(Store(tmp_path), EXAMPLES)
    beyond = {config.learning_rate for config in added}
    assert beyond <= {float(f"{4 * max(tried):.3g}"), float(f"{min(tried) / 4:.3g}")}
    assert {(config.task, config.batch_size, config.updates) for config in added} == {
        (cells[0][0].task, 32, cells[0][0].updates)
    }
    run_cell(tmp_path, added, 1.9, 100)
    again = {config.learning_rate for cell in grid.extended(Store(tmp_path), EXAMPLES) for config in cell}
    assert not any(rate > max(beyond) > max(tried) or rate < min(beyond) < min(tried) for rate in again)


def test_a_run_whose_batch_changes_tries_no_rate_of_the_grid(tmp_path: Path) -> None:
    options = {"optimizers": ("sgd",), "batch_sizes": (32,), "rates": 2, "spacing": 4.0, "extensions": 1, "seeds": (0,)}
    grid = SupervisedGrid(task="digits-mlp", targets=(1.9,), epochs=1, updates=60, **options)
    ((first, *others),) = grid.cells(EXAMPLES)
    store = Store(tmp_path)
    run_cell(tmp_path, [first, *others], 1.9, 100)
    before, said = grid.extended(store, EXAMPLES), grid.remarks(store)
    assert before
    rate = max(config.learning_rate for config in before[0]) * 100
    optimizer = replace(first.optimizer, learning_rate=rate)
    adaptive = replace(first, optimizer=optimizer, adaptive=AdaptiveExamplesConfig(exchange_rate=30.0))
    assert adaptive.task == first.task
    with store.open_run(adaptive, {}) as run:
        for row in store.read_rows(first.run_id):
            run.append(row)
        run.seal("done")
    assert grid.extended(store, EXAMPLES) == before
    assert grid.remarks(store) == said


def test_a_grid_is_for_targets_or_for_budgets() -> None:
    for goals in ({}, {"targets": (1.0,), "budgets": (Budget(1, "epochs"),)}):
        with pytest.raises(ConfigError, match="give at least one"):
            SupervisedGrid(task="digits-mlp", optimizers=("sgd",), batch_sizes=(8,), **goals)
