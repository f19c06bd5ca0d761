"""`rl-scaling advise` as a user types it, on the shipped sweep and on a run made just now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rl_scaling import analysis, cli

SHIPPED = Path(__file__).parents[2] / "results" / "breakout-a2c"
RUN = "70167c2d2af5"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_everything_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "advise", SHIPPED, "--run", RUN, "--json", "--max-envs", 100)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    assert found["run"]["batch_size"] == 240
    assert found["run"]["goal"] == 8
    assert [choice["name"] for choice in found["choices"]] == ["cheapest", "balanced", "fastest"]
    for choice in found["choices"]:
        interval = choice["batch_size_interval"]
        assert interval["low"] <= interval["value"] <= interval["high"] <= 500
        assert choice["num_envs"] == max(1, round(interval["value"] / 5))
        assert choice["hours"]["low"] <= choice["hours"]["value"] <= choice["hours"]["high"]
    sizes = [cost["batch_size"] for cost in found["curve"]]
    assert sizes == sorted(sizes)
    assert sizes[-1] <= 500
    assert {row["goal"] for row in found["measured"]} == {2, 3, 4, 5, 6, 7, 8}
    assert found["throughput"]["overhead_seconds"] > 0


def test_tables_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "advise", SHIPPED, "--frames", "1e5")
    assert code == 0
    assert "B_crit >" in out
    assert "not resolved" in out
    assert "fastest" in out


def test_other_tasks_correct_and_widen(capsys: pytest.CaptureFixture[str]) -> None:
    """This sweep is left out of what corrects it."""
    turns = {}
    for option in ("--correct", "--no-correct"):
        code, out, _ = run(capsys, "advise", SHIPPED, option, "--json")
        assert code == 0
        found = json.loads(out)
        turns[option] = found["critical_batch"]
        assert (found["correction"] is None) == (option == "--no-correct")
        if found["correction"]:
            assert found["correction"]["left_out"]["tasks"] > found["correction"]["tasks"]
    assert turns["--no-correct"]["value"] == pytest.approx(142, rel=0.01)
    assert turns["--correct"]["low"] < turns["--no-correct"]["low"]
    assert turns["--correct"]["high"] > turns["--no-correct"]["high"]


def test_weights_that_were_kept_stand_for_the_meter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `rl-scaling measure` finds them at goals of a run."""

    def measured(runs: pd.DataFrame) -> pd.DataFrame:
        own = runs[runs["run_id"] == RUN]
        updates = own["updates"].to_numpy()[[len(own) // 3, -1]]
        found = pd.DataFrame({"task": own["task"].iloc[0], "of_run": RUN, "of_updates": updates, "confidence": 0.95})
        return found.assign(noise_scale=300.0, noise_scale_low=250.0, noise_scale_high=360.0)

    monkeypatch.setattr(analysis, "frozen_noise_scales", measured, raising=False)
    code, out, _ = run(capsys, "advise", SHIPPED, "--no-correct", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["run"]["run_id"], found["source"]) == (RUN, "kept weights")
    assert found["critical_batch"]["value"] == pytest.approx(300, rel=0.01)
    code, out, _ = run(capsys, "advise", SHIPPED, "--no-correct")
    assert "By its noise scale, measured with the weights kept: S_min" in out


def test_the_table_over_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "advise", "--table", SHIPPED)
    assert code == 0
    assert "too few" in out, "one task has no others"
    assert "all that is trained, 1 tasks" in out.replace("\n", " ")
    code, out, _ = run(capsys, "advise", "--table", SHIPPED, "--json")
    assert code == 0
    (task,) = json.loads(out)["tasks"]
    assert task["run_id"] == "cac04310bf0a"
    assert task["swept_low"] < task["swept"] < task["swept_high"]
    code, out, err = run(capsys, "advise", "--table", SHIPPED.parent / "pong-a2c")
    assert (code, out) == (2, "")
    assert "no task has both a swept B_crit and a run with a noise scale" in err.replace("\n", " ")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    words = ["train", "a2c", "--env-id", "CartPole-v1", "--network", "mlp", "--num-envs", "8", "--frames", "8e3"]
    assert cli.main([*words, "--every-updates", "1", "--record-every-frames", "200", "--out", str(folder)]) == 0
    return folder


def test_one_run_with_times_measured_now(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("advise", short, "--goals", 500, "--probe", 2, 16, "--probe-seconds", 0.3, "--threads", 1)
    code, out, err = run(capsys, *words, "--json")
    assert code == 0
    assert err.count("ms an update") == 2
    found = json.loads(out)
    assert found["throughput"]["batch_sizes"] == [10, 80]
    assert found["measured"] == []
    assert any("reached no goal" in concern or "not moved" in concern for concern in found["concerns"])
    code, out, err = run(capsys, "advise", short, "--goals", 500)
    assert code == 0
    assert "no hours: times are known at one batch size only" in err
    assert "fastest" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run", "nowhere"), "no run 'nowhere'"),
        (("--probe", "8"), "two different numbers of environments"),
        (("--confidence", "2"), "number between 0 and 1"),
        ((), "has no goals of its own"),
        (("--goals", "500", "--frames", "-1"), "--frames is -1"),
    ],
)
def test_bad_input_is_one_line(
    short: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    goals = () if not words else ("--goals", "500")
    code, out, err = run(capsys, "advise", short, *goals, *(word for word in words if word not in goals))
    assert (code, out) == (2, "")
    assert message in err.replace("\n", " ")
