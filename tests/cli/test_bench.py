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


def test_minatar_prints_all_ways_for_programs_and_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minatar")
    quick = ["bench", "minatar", "--num-envs", "4", "2", "--runs", "3", "--rounds", "1", "--seconds", "0.05"]
    assert cli.main([*quick, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["num_envs"], row["runs"]) for row in found["rows"]] == [(2, 3), (4, 3)]
    for row in found["rows"]:  # of one round: its ratios are those of its figures
        assert row["gain"]["median"] == pytest.approx(row["together"] / row["alone"])
        assert row["to_sb3"]["median"] == pytest.approx(row["alone"] / row["sb3"])
    assert cli.main([*quick, "--algorithm", "ppo", "--no-sb3"]) == 0
    printed = capsys.readouterr().out
    assert "ppo on minatar/breakout" in printed
    assert "Stable-Baselines3" not in printed


def test_minatar_without_stable_baselines_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minatar")
    monkeypatch.setattr("rl_scaling.cli.bench.find_spec", lambda name: None)
    assert cli.main(["bench", "minatar", "--num-envs", "2", "--runs", "2", "--rounds", "1", "--seconds", "0.01"]) == 0
    told = capsys.readouterr()
    assert "pip install 'rl-scaling[bench]'" in told.err
    assert "alone to it" not in told.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["supervised", "--trials", "0"], "--trials is 0"),
        (["supervised", "--batch-sizes", "0"], "--batch-sizes of 1 or more"),
        (["noise", "--rounds", "0"], "--rounds of 1 or more"),
        (["minatar", "--runs", "1"], "--runs is 1"),
        (["minatar", "--num-envs", "1"], "--num-envs of 2 or more"),
        (["minatar", "--game", "Pong"], "give a game of MinAtar"),
    ],
)
def test_bad_options_are_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2
    assert told in capsys.readouterr().err
