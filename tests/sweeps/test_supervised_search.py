"""A search keeps to its budget of trials that do not diverge, and is fitted like any sweep."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rl_scaling.cli import main
from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import Budget, SupervisedConfig
from rl_scaling.records import LossRecord
from rl_scaling.store import Store, load_runs
from rl_scaling.sweeps.supervised import SupervisedGrid
from rl_scaling.sweeps.supervised_search import SupervisedSearch

EXAMPLES = 1200
GRID = SupervisedGrid(
    task="digits-mlp", optimizers=("momentum",), batch_sizes=(64,), targets=(0.5,), seeds=(0, 1), epochs=1
)


def seal(store: Store, config: SupervisedConfig, status: str, updates: int = 10) -> None:
    with store.open_run(config, {}) as run:
        for row, loss in ((0, 2.3), (updates, 0.1)):
            run.append(LossRecord(updates=row, examples=64 * row, wall_seconds=0.0, loss=loss, validation_loss=loss))
        run.seal("diverged" if status == "diverged" else "done")


def test_what_diverges_is_replaced_by_further_points(tmp_path: Path) -> None:
    search, store = SupervisedSearch(grid=GRID, trials=4), Store(tmp_path)
    (cell,) = search.cells(EXAMPLES)
    assert len(cell) == 4 * 2
    for number, config in enumerate(cell):
        seal(store, config, "diverged" if number in (2, 3, 5) else "done")  # points 1 and 2
    (more,) = search.extended(store, EXAMPLES)
    assert len(more) == 2 * 2
    assert not {config.run_id for config in more} & {config.run_id for config in cell}
    for config in more:
        seal(store, config, "done")
    assert search.extended(store, EXAMPLES) == []


def test_it_ends_where_nearly_everything_diverges(tmp_path: Path) -> None:
    search, store = SupervisedSearch(grid=GRID, trials=2), Store(tmp_path)
    cells, drawn = search.cells(EXAMPLES), 0
    while cells:
        for config in cells[0]:
            seal(store, config, "diverged")
        drawn += len(cells[0]) // 2
        cells = search.extended(store, EXAMPLES)
    assert drawn == 3 * 2


def test_the_bound_that_the_best_is_near_is_named(tmp_path: Path) -> None:
    search, store = SupervisedSearch(grid=GRID, trials=16, decay=True), Store(tmp_path)
    (cell,) = search.cells(EXAMPLES)
    best = max(cell, key=lambda config: config.learning_rate)
    for config in cell:
        seal(store, config, "done", updates=5 if config.optimizer == best.optimizer else 50)
    (rate, *_) = search.remarks(store)
    assert rate.startswith("digits-mlp momentum schedule=linear, batch 64, to 0.5: learning rate")
    assert "upper bound" in rate


def test_momentum_average_and_schedule_are_searched_where_they_are() -> None:
    names = {"sgd": 1, "momentum": 2, "adam": 2, "sgd+ema": 2, "rmsprop": 1}
    for name, dimensions in names.items():
        assert len(SupervisedSearch(grid=GRID).space(name, 64)) == dimensions  # pyright: ignore[reportArgumentType]
    assert len(SupervisedSearch(grid=GRID, decay=True).space("sgd", 64)) == 3
    rate = SupervisedSearch(grid=GRID, width=16.0).space("sgd", 64)[0]
    assert (rate.low, rate.high) == (pytest.approx(0.35 / 4), pytest.approx(0.35 * 4))


def test_what_cannot_be_searched_is_refused() -> None:
    budgets = SupervisedGrid(task="digits-mlp", optimizers=("sgd",), batch_sizes=(8,), budgets=(Budget(1, "epochs"),))
    for options, complaint in (
        ({"grid": budgets}, "a search is for targets"),
        ({"grid": GRID, "trials": 0}, "0 trials"),
        ({"grid": GRID, "width": math.nan}, "width nan"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            SupervisedSearch(**options)  # pyright: ignore[reportArgumentType]


def test_a_search_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "supervised", "--optimizers", "momentum", "--batch-sizes", "128", "--seeds", "0"]
    command += ["--search", "sobol", "--trials", "4", "--decay", "--updates", "20", "--epochs", "1", "--targets", "2.2"]
    assert main([*command, "--workers", "1", "--out", str(tmp_path)]) == 0
    runs = load_runs(tmp_path)
    assert set(runs["task"]) == {"digits-mlp momentum schedule=linear"}
    sound = runs[runs["status"] == "done"]
    assert sound["setting"].nunique() == 4
    assert main([*command, "--workers", "1", "--out", str(tmp_path)]) == 0
    assert "0 of them to do" in capsys.readouterr().err
