"""The grid of supervised sweeps grows where its best learning rate lies on an edge."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl_scaling.config import ConfigError
from rl_scaling.store import Store
from rl_scaling.supervised.budgets import Budget
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


def test_a_grid_is_for_targets_or_for_budgets() -> None:
    for goals in ({}, {"targets": (1.0,), "budgets": (Budget(1, "epochs"),)}):
        with pytest.raises(ConfigError, match="give at least one"):
            SupervisedGrid(task="digits-mlp", optimizers=("sgd",), batch_sizes=(8,), **goals)
