"""`rl-scaling sweep supervised`: each run once, and a store that can be fitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_scaling.cli import main


@pytest.mark.parametrize(
    ("task", "of_runs"), [("digits-mlp", "digits-mlp sgd"), ("digits-cnn", "digits-small-cnn sgd")]
)
def test_sweep_does_each_run_once_and_its_store_is_fitted(
    task: str, of_runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", "supervised", "--task", task, "--optimizers", "sgd", "--batch-sizes", "8", "64", "512"]
    command += ["--rates", "2", "--extensions", "0"]
    command += ["--seeds", "0", "--targets", "1.6", "--updates", "200", "--epochs", "1", "--workers", "1"]
    command += ["--out", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    first = capsys.readouterr()
    assert "6 of them to do" in first.err
    assert {row["status"] for row in json.loads(first.out)} <= {"done", "diverged"}
    assert main(command) == 0
    assert "0 of them to do" in capsys.readouterr().err
    assert main(["status", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(0 < row["examples"] <= row["examples_planned"] == 200 * row["batch_size"] for row in rows)
    assert main(["fit", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["task"], row["unit"], row["quantity"], row["batch_sizes"]) == (
        *(of_runs, "examples", "validation_loss"),
        3,
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(["--batch-sizes", "0"], "batch size 0"), (["--targets"], "at least one"), (["--rates", "0"], "--rates")],
)
def test_bad_arguments_are_one_line(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "supervised", *options]) == 2
    assert complaint in capsys.readouterr().err
