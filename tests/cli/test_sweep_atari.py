"""Sweeps of several games, in named sizes, and what they will take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_scaling import cli
from rl_scaling.cli import forecast
from rl_scaling.cli.sweep_atari import SweepAtari
from rl_scaling.envs import GAMES
from rl_scaling.store import Store, load_runs
from rl_scaling.sweeps.plan import read_plan
from rl_scaling.sweeps.scales import SCALES

TINY = ["--network", "small", "--num-envs", "2", "--learning-rates", "1e-3", "--frames", "60", "--max-start-steps", "0"]


def test_every_game_has_its_own_store_and_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "atari", "--game", "pong", "Breakout", "pong", *TINY, "--out", str(tmp_path), "--workers", "2"]
    assert cli.main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["task"].split()[0], Path(row["store"]).name, row["status"]) for row in rows] == [
        ("Pong", "pong-a2c", "done"),
        ("Breakout", "breakout-a2c", "done"),
    ]
    for name in ("Pong", "Breakout"):
        plan = read_plan(Store(tmp_path / f"{name.lower()}-a2c"))
        assert plan is not None
        assert plan.goals == GAMES[name].goals

    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert cli.main(["fit", str(tmp_path), "--json"]) == 0
    fits = json.loads(capsys.readouterr().out)
    assert {row["goal"] for row in fits if row["task"].startswith("Pong")} == set(GAMES["Pong"].goals)


def test_status_knows_what_waits_in_each_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "atari", "--game", "pong", "breakout", *TINY, "--out", str(tmp_path), "--minutes", "0"]
    assert cli.main(words) == 1
    capsys.readouterr()
    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["task"].split()[0] for row in rows} == {"Pong", "Breakout"}
    assert all(row["status"] != "done" for row in rows)


def test_all_are_the_seven_games() -> None:
    plans = SweepAtari(game=("all",), algorithm="ppo").plans()
    assert [folder.name for folder in plans] == [f"{name.lower()}-ppo" for name in GAMES]
    assert [plan.goals for plan in plans.values()] == [game.goals for game in GAMES.values()]


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_a_scale_fills_in_what_is_not_said(name, algorithm) -> None:  # pyright: ignore[reportMissingParameterType]
    (plan,) = SweepAtari(game=("Pong",), scale=name, algorithm=algorithm).plans().values()
    scale = SCALES[name]
    assert plan.num_envs == scale.num_envs[algorithm]
    assert (plan.base.frames, plan.base.agent.network) == (scale.frames, scale.network)
    assert (plan.best_seeds, plan.learning_rates.count) == (scale.best_seeds, scale.rates)
    assert plan.trials()

    asked = SweepAtari(
        game=("Pong",), scale=name, algorithm=algorithm, num_envs=(16,), frames=77_000, best_seeds=(), network="nature"
    )
    (own,) = asked.plans().values()
    assert (own.num_envs, own.base.frames, own.best_seeds) == ((16,), 77_000, ())
    assert own.base.agent.network == "nature"
    assert own.learning_rates.count == scale.rates


def test_the_paper_scale_reaches_20_000_frames_a_batch() -> None:
    for algorithm in ("a2c", "ppo"):
        (plan,) = SweepAtari(game=("Pong",), scale="paper", algorithm=algorithm).plans().values()
        assert max(trial.batch_size for trial in plan.trials()) >= 20_000


def test_a_dry_run_says_what_it_takes_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecast, "MEASURED_SECONDS", 0.2)
    out = tmp_path / "runs"
    words = ["sweep", "atari", "--game", "pong", "breakout", *TINY, "--best-seeds", "1", "2", "--out", str(out)]
    assert cli.main([*words, "--workers", "1", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trials"], found["frames"]) == (6, 360)
    assert [Path(one["store"]).name for one in found["sweeps"]] == ["pong-a2c", "breakout-a2c"]
    assert 0 < found["hours"] < 0.1
    assert 0 < found["disk_bytes"] < found["disk_free_bytes"]
    assert 3e8 < found["memory_bytes"] < 1e9
    assert found["measured"]["game"] == "Pong"
    one = found["sweeps"][0]
    assert found["disk_bytes"] == 2 * one["kept_bytes"] + one["open_bytes"], "the games share the workers"
    assert not out.exists()


def test_a_scale_is_forecast_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecast, "MEASURED_SECONDS", 0.2)
    words = ["sweep", "atari", "--game", "pong", "--scale", "smoke", *TINY, "--workers", "1", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    err = capsys.readouterr().err
    assert err.index("1 trials, 60 frames: about 1 min") < err.index("1 done of 1 trials")
    assert load_runs(tmp_path)["examples"].max() >= 60


def test_a_forecast_says_that_memory_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    measured = {"game": "Pong", "frames_per_second": [1.0], "frames_per_rollout": [20.0]}
    found = {
        "sweeps": [],
        "trials": 0,
        "frames": 0,
        "hours": 0.0,
        "hours_extended": 0.0,
        "workers": 1,
        "measured": measured,
    }
    found |= {"disk_bytes": 1.0, "disk_free_bytes": 2.0, "memory_free_bytes": 2e9}
    forecast.show_forecast(found | {"memory_bytes": 1e9})
    assert "refused" not in capsys.readouterr().err
    forecast.show_forecast(found | {"memory_bytes": 3e9})
    assert "it would be refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--game pong breakout --goals 3", "--goals are scores of one game"),
        ("--game", "name a game"),
        ("--game all pong", "no game 'all'"),
        ("--game pong --num-envs", "no batch sizes"),
        ("--game pong --num-envs 4 1000000 --learning-rates 1e-3", "2 runs of up to 1,000,000 environments need about"),
    ],
)
def test_bad_input(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", "atari", "--workers", "2", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert not (tmp_path / "runs").exists()
