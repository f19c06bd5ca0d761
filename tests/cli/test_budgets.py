"""Runs with budgets, from the sweep to the table and the charts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_scaling.cli import main
from rl_scaling.store import list_runs, load_runs

SMALL = [
    *("sweep", "supervised", "--optimizers", "sgd", "momentum", "--rates", "2", "--seeds", "0", "--workers", "1"),
    *("--extensions", "0", "--batch-sizes", "32", "128", "512"),
]


def test_the_same_steps_at_every_batch_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--budget", "steps", "--updates", "20", "--out", str(tmp_path / "runs")]) == 0
    runs = load_runs(tmp_path / "runs")
    ended = runs[runs["status"] == "done"].groupby("run_id")["updates"].last()
    assert set(ended) == {20}
    assert set(runs["task"]) == {f"digits-mlp {name} schedule=halving budget=20 steps" for name in ("sgd", "momentum")}
    last = runs[runs["updates"] == 20]
    assert (last["current_learning_rate"] / last["learning_rate"]).to_list() == pytest.approx([0.5**10] * len(last))
    capsys.readouterr()
    assert main(["budgets", str(tmp_path / "runs"), "--json", "--figures", str(tmp_path / "charts")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["best"]) == 2 * 3 * 3
    assert {row["at_edge"] for row in found["best"]} <= {"low", "high"}
    assert len(found["against_sgd"]) == 3 * 3
    assert found["unlimited"] == []
    assert {row["batch_sizes"] for row in found["turns"]} == {3}
    names = {path.name for path in (tmp_path / "charts").glob("*.svg")}
    assert names == {f"digits-mlp-20-steps-{what}.svg" for what in ("rates", "training-loss", "validation-accuracy")}
    assert main(["budgets", str(tmp_path / "runs")]) == 0
    assert "the best rate stops growing around" in capsys.readouterr().out


def test_unlimited_is_epochs_and_their_doublings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*SMALL[:-3], "64", "--budget", "unlimited", "--epochs", "0.5", "--doublings", "2"]
    assert main([*command, "--out", str(tmp_path / "runs")]) == 0
    assert {info.config["budget"]: info.config["updates"] for info in list_runs(tmp_path / "runs")} == {
        "0.5 epochs": 10,
        "1 epochs": 19,
        "2 epochs": 38,
    }
    assert main(["budgets", str(tmp_path / "runs"), "--figures", str(tmp_path / "charts")]) == 0
    assert "the longest tried" in capsys.readouterr().out
    assert (tmp_path / "charts" / "digits-mlp-by-epochs-at-64-rates.svg").is_file()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--budget", "epochs", "--epochs", "0"], "a budget of 0 epochs"),
        (["--budget", "steps", "--batch-sizes", "0"], "batch size 0"),
        (["--budget", "unlimited", "--doublings", "-1"], "--doublings is -1"),
        (["--budget", "epochs", "--seeds"], "at least one"),
    ],
)
def test_bad_budgets_are_one_line(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "supervised", *options]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_a_store_without_budgets_says_how_to_make_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "supervised", "--optimizers", "sgd", "--rates", "1", "--seeds", "0", "--batch-sizes", "512"]
    command += ["--updates", "2", "--epochs", "1", "--workers", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    assert main(["budgets", str(tmp_path)]) == 1
    assert "sweep supervised --budget" in capsys.readouterr().err
