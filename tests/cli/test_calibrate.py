from __future__ import annotations

import json

import pytest

from rl_scaling import cli

QUICK = ["calibrate", "--fast", "--repeats", "3", "--measurements", "30", "--workers", "1"]


def test_rows_are_json_and_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*QUICK, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == (5 + 2) * 3 * 7
    names = {"problem", "batch_over_noise_scale", "groups", "correlation", "bias", "coverage", "unresolved"}
    assert all(names <= row.keys() for row in rows)
    # The smallest batch resolves nothing, and JSON has no NaN.
    assert any(row["bias"] is None and row["unresolved"] == 1 for row in rows)


def test_the_table_says_what_was_aimed_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(QUICK) == 0
    out = capsys.readouterr().out
    assert "3 series of 30 measurements" in out
    assert "environments, correlation 0.9:" in out
    assert "bias below 2 %" in out


@pytest.mark.parametrize("words", [["--repeats", "1"], ["--measurements", "1"], ["--seed", "-1"], ["--workers", "-1"]])
def test_bad_arguments_end_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["calibrate", *words]) == 2
    assert f"rl-scaling: {words[0]} is {words[1]}" in capsys.readouterr().err
