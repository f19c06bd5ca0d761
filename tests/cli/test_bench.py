"""The benchmarks as a user asks for them; what they measure is tested in tests/validation."""

from __future__ import annotations

import json

import pytest

from rl_scaling import cli

QUICK = ["--trials", "3", "--rounds", "2", "--seconds", "0.01", "--batch-sizes", "2", "1"]


def test_supervised_prints_both_ways_for_programs_and_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "supervised", *QUICK, "--device", "cpu", "--updates", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["batch_size"], row["trials"]) for row in found["rows"]] == [(1, 3), (2, 3)]
    assert all(row["alone_per_hour"] == pytest.approx(36 * row["alone"]) for row in found["rows"])
    assert found["last_that_pays"] in (None, 1, 2)
    assert cli.main(["bench", "supervised", *QUICK, "--device", "cpu"]) == 0
    assert "the gain ends" in capsys.readouterr().out


def test_runs_prints_both_ways_for_programs_and_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minatar")
    quick = ["bench", "runs", "--num-envs", "4", "2", "--runs", "3", "--rounds", "1", "--seconds", "0.05"]
    assert cli.main([*quick, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["num_envs"], row["runs"]) for row in found["rows"]] == [(2, 3), (4, 3)]
    assert all(min(row["alone"], row["together"], row["ratio"]) > 0 for row in found["rows"])
    assert cli.main([*quick, "--algorithm", "ppo"]) == 0
    assert "ppo on minatar/breakout" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["supervised", "--trials", "0"], "--trials is 0"),
        (["supervised", "--batch-sizes", "0"], "--batch-sizes of 1 or more"),
        (["noise", "--rounds", "0"], "--rounds of 1 or more"),
        (["runs", "--runs", "1"], "--runs is 1"),
        (["runs", "--num-envs", "1"], "--num-envs of 2 or more"),
        (["runs", "--game", "Pong"], "give a game of MinAtar"),
    ],
)
def test_bad_options_are_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2
    assert told in capsys.readouterr().err
