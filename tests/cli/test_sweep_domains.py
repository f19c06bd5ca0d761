"""Sweeps of games in named sizes, of supervised tasks, and what they will take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tyro
from tyro.conf import OmitArgPrefixes

from rl_scaling import cli
from rl_scaling.cli import main
from rl_scaling.cli.sweep_domains import SweepRL
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl import timing
from rl_scaling.domains.rl.registry import find_algorithm
from rl_scaling.domains.rl.task import SCALES
from rl_scaling.envs import GAMES, MINATAR_GAMES
from rl_scaling.store import Store, load_runs
from rl_scaling.sweeps.forecast import Forecast, Forecasts
from rl_scaling.sweeps.plan import kept_goals
from tests.cli.commands import run

TINY = ["--network", "small", "--num-envs", "2", "--learning-rates", "1e-3", "--frames", "60", "--max-start-steps", "0"]


def test_a_sweep_of_ppo_has_batches_of_minibatches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "atari", "--algorithm", "ppo", "--game", "pong", "--network", "small", "--num-envs", 2, 4]
    words += ["--rollout-steps", 16, "--epochs", 2, "--learning-rates", "1e-3", "--frames", 100, "--workers", 2]
    code, out, _ = run(capsys, *words, "--goals", -21, "--out", tmp_path, "--json")
    assert code == 0
    assert [(row["status"], row["batch_size"]) for row in json.loads(out)] == [("done", 8), ("done", 16)]


def test_every_game_has_its_own_store_and_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "atari", "--game", "pong", "Breakout", "pong", *TINY, "--out", str(tmp_path), "--workers", "2"]
    assert cli.main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["task"].split()[0], Path(row["store"]).name, row["status"]) for row in rows] == [
        ("Pong", "pong-a2c", "done"),
        ("Breakout", "breakout-a2c", "done"),
    ]
    for name in ("Pong", "Breakout"):
        (goals,) = kept_goals(Store(tmp_path / f"{name.lower()}-a2c")).values()
        assert goals == GAMES[name].goals

    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert cli.main(["fit", str(tmp_path), "--json"]) == 0
    fits = json.loads(capsys.readouterr().out)
    assert {row["goal"] for row in fits if row["task"].startswith("Pong")} == set(GAMES["Pong"].goals)


def test_environments_of_gymnasium_are_swept_like_games(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By their module, with continuous actions, in processes of their own; the network follows from what they show."""
    (tmp_path / "swinging.py").write_text(
        "import gymnasium\ngymnasium.register('Swing/Own-v0',"
        " entry_point='gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["sweep", "rl", "--env", "swinging:Swing/Own-v0", "--goals", -100, "--num-envs", 2, 4, "--frames", 100]
    code, out, said = run(capsys, *words, "--learning-rates", "1e-3", "--out", tmp_path, "--workers", 1, "--json")
    assert code == 0, said
    assert "observations of swinging:Swing/Own-v0 have the shape (3,): the network is mlp" in said
    rows = json.loads(out)
    assert [(row["status"], row["batch_size"]) for row in rows] == [("done", 10), ("done", 20)]
    assert {row["task"] for row in rows} == {"swinging:Swing/Own-v0 a2c network=mlp"}
    assert load_runs(tmp_path)["score"].max() < -10
    folders = SweepRL(env_id="swinging:Swing/Own-v0", goals=(-100.0,), algorithm="ppo").plans()
    assert [folder.name for folder in folders] == ["swing-own-v0-ppo"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": ("Pong",), "goals": (1.0,)}, "leave --game or --env-id out"),
        ({}, "CartPole-v1 has no goals of its own: name scores to reach"),
        ({"goals": (1.0,), "played": SweepRL().played.__class__(frame_skip=2)}, "--frame-skip is for Atari"),
    ],
)
def test_what_does_not_go_with_an_environment_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SweepRL(env_id="CartPole-v1", **options).plans()


def test_a_network_that_was_asked_for_is_kept() -> None:
    (plan,) = SweepRL(env_id="CartPole-v1", goals=(1.0,), network="small").plans().values()
    assert plan.tasks[0].base.agent.network == "small"  # pyright: ignore[reportAttributeAccessIssue]


def test_status_knows_what_waits_in_each_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "atari", "--game", "pong", "breakout", *TINY, "--out", str(tmp_path), "--minutes", "0"]
    assert cli.main(words) == 1
    capsys.readouterr()
    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["task"].split()[0] for row in rows} == {"Pong", "Breakout"}
    assert all(row["status"] != "done" for row in rows)


def test_all_are_the_seven_games() -> None:
    plans = SweepRL(game=("all",), algorithm="ppo").plans()
    assert [folder.name for folder in plans] == [f"{name.lower()}-ppo" for name in GAMES]
    assert [plan.tasks[0].goals for plan in plans.values()] == [game.goals for game in GAMES.values()]


def test_games_of_minatar_have_their_own_network_and_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "rl", "--game", "minatar/breakout", "minatar/space-invaders", "--num-envs", "2", "4"]
    words += ["--learning-rates", "1e-3", "--frames", "400", "--workers", "1", "--out", str(tmp_path), "--json"]
    assert cli.main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["task"], Path(row["store"]).name) for row in rows} == {
        ("minatar/breakout a2c network=minatar", "minatar-breakout-a2c"),
        ("minatar/space_invaders a2c network=minatar", "minatar-space_invaders-a2c"),
    }
    assert cli.main(["fit", str(tmp_path), "--json"]) == 0
    fits = json.loads(capsys.readouterr().out)
    assert {row["goal"] for row in fits} == {
        goal for name in ("breakout", "space_invaders") for goal in MINATAR_GAMES[f"minatar/{name}"].goals
    }


def test_a_run_that_no_sweep_made_has_the_goals_of_its_game(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of MinAtar's Breakout, which has Atari's name in its config."""
    words = ["train", "ppo", "--game", "MinAtar/Breakout-v1", "--num-envs", "2", "--frames", "300", "--epochs", "1"]
    assert cli.main([*words, "--threads", "1", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert cli.main(["fit", str(tmp_path), "--json"]) == 0
    fits = json.loads(capsys.readouterr().out)
    assert {row["goal"] for row in fits} == set(MINATAR_GAMES["minatar/breakout"].goals)


def test_all_of_minatar_are_its_five_games() -> None:
    plans = SweepRL(game=("minatar/all",), scale="paper").plans()
    assert [folder.name for folder in plans] == [f"{game.folder}-a2c" for game in MINATAR_GAMES.values()]
    for plan, game in zip(plans.values(), MINATAR_GAMES.values(), strict=True):
        task: Any = plan.tasks[0]
        assert (task.goals, task.base.environment.name) == (game.goals, game.name)
        assert (task.base.agent.network, task.base.frames) == ("minatar", 5_000_000)
        assert num_envs_of(task) == (4, 16, 64, 256, 1024, 4096)


def num_envs_of(task: Any) -> tuple[int, ...]:
    return tuple(task.base.agent.num_envs_for(size) for size in task.batch_sizes)


def first_trials(task: Any) -> list[Any]:
    return [task.config(size, rate, 0) for size in task.batch_sizes for rate in task.learning_rates.grid(size)]


@pytest.mark.parametrize("name", [name for name in SCALES if name != "plain"])
@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_a_scale_fills_in_what_is_not_said(name, algorithm) -> None:  # pyright: ignore[reportMissingParameterType]
    (plan,) = SweepRL(game=("Pong",), scale=name, algorithm=algorithm).plans().values()
    scale = SCALES[name]
    task: Any = plan.tasks[0]
    assert num_envs_of(task) == find_algorithm(algorithm).num_envs_of_scale[name]
    assert (task.base.frames, task.base.agent.network) == (scale.frames, scale.network)
    assert (plan.best_seeds, task.learning_rates.count) == (scale.best_seeds, scale.rates)
    assert task.base.noise_scale.every_updates == scale.noise_every_updates
    assert first_trials(task)

    asked = SweepRL(
        game=("Pong",), scale=name, algorithm=algorithm, num_envs=(16,), frames=77_000, best_seeds=(), network="nature"
    )
    (own,) = asked.plans().values()
    task = own.tasks[0]
    assert (num_envs_of(task), task.base.frames, own.best_seeds) == ((16,), 77_000, ())
    assert task.base.agent.network == "nature"
    assert task.learning_rates.count == scale.rates


def test_the_paper_scale_reaches_20_000_frames_a_batch() -> None:
    for algorithm in ("a2c", "ppo"):
        (plan,) = SweepRL(game=("Pong",), scale="paper", algorithm=algorithm).plans().values()
        assert max(trial.batch_size for trial in first_trials(plan.tasks[0])) >= 20_000


def test_a_dry_run_says_what_it_takes_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "MEASURED_SECONDS", 0.2)
    out = tmp_path / "runs"
    words = ["sweep", "atari", "--game", "pong", "breakout", *TINY, "--best-seeds", "1", "2", "--out", str(out)]
    assert cli.main([*words, "--workers", "1", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trials"], found["frames"]) == (6, 360)
    assert [Path(one["store"]).name for one in found["sweeps"]] == ["pong-a2c", "breakout-a2c"]
    assert 0 < found["hours"] < 0.1
    assert 0 < found["disk_bytes"] < found["disk_free_bytes"]
    assert 3e8 < found["memory_bytes"] < 1e9
    one = found["sweeps"][0]
    assert "Pong" in one["note"], "what the forecast rests on"
    assert found["disk_bytes"] == 2 * one["kept_bytes"] + one["open_bytes"], "the games share the workers"
    assert not out.exists()


def test_a_scale_is_forecast_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "MEASURED_SECONDS", 0.2)
    words = ["sweep", "atari", "--game", "pong", "--scale", "smoke", *TINY, "--workers", "1", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    err = capsys.readouterr().err
    assert err.index("1 trials, 60 frames: about ") < err.index("1 done of 1 trials")
    assert load_runs(tmp_path)["examples"].max() >= 60


def test_a_forecast_says_that_memory_is_short() -> None:
    told = {}
    for memory in (1e9, 3e9):
        one = Forecast(
            task="Pong a2c", store="runs", unit="frames", trials=0, units=0, seconds=0.0, longest_seconds=0.0,
            extension_seconds=0.0, memory_bytes=memory, kept_bytes=1.0, open_bytes=0.0, note="measured on Pong",
        )  # fmt: skip
        forecasts = Forecasts(sweeps=(one,), slots=1, memory_free_bytes=2e9, disk_free_bytes=2.0)
        told[memory] = "\n".join(forecasts.lines())
    assert "refused" not in told[1e9]
    assert "it would be refused" in told[3e9]


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
    assert "6 trials of" in first.err
    assert {row["status"] for row in json.loads(first.out)} <= {"stopped", "done", "diverged"}
    assert main(command) == 0
    assert ", 0 to do" in capsys.readouterr().err
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
def test_bad_arguments_of_a_supervised_sweep_are_one_line(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "supervised", *options]) == 2
    assert complaint in capsys.readouterr().err


def test_atari_and_rl_are_the_same_command(capsys: pytest.CaptureFixture[str]) -> None:
    helps = []
    for name in ("atari", "rl"):
        with pytest.raises(SystemExit):
            cli.main(["sweep", name, "--help"])
        helps.append(capsys.readouterr().out.replace(f"sweep {name}", "sweep").replace(f"[{name.upper()} ", "["))
    assert helps[0] == helps[1]


@pytest.mark.parametrize(
    ("scaling", "folder", "kind", "sizes"),
    [
        ("count", "pong-ppo", "ppo", (256, 1024)),
        ("minibatch", "pong-ppo-minibatch", "ppo", (1024, 4096)),
        ("ewma", "pong-ppo-ewma", "ppo-ewma", (256, 1024)),
    ],
)
def test_families_of_ppo_have_stores_and_batches_of_their_own(
    scaling: str, folder: str, kind: str, sizes: tuple[int, ...]
) -> None:
    words = ["--game", "pong", "--algorithm", "ppo", "--scaling", scaling, "--num-envs", "8", "32"]
    ((path, plan),) = tyro.cli(SweepRL, args=words, config=(OmitArgPrefixes,)).plans().items()
    task: Any = plan.tasks[0]
    assert (path.name, task.base.agent.kind, task.batch_sizes) == (folder, kind, sizes)
    assert num_envs_of(task) == (8, 32)


def test_options_of_ppo_ewma_go_with_either_of_its_names() -> None:
    def agent_of(*words: str) -> Any:
        found = tyro.cli(SweepRL, args=["--game", "pong", *words, "--proximal-decay", "0.9"], config=(OmitArgPrefixes,))
        task: Any = next(iter(found.plans().values())).tasks[0]
        return task.base.agent

    by_scaling, by_name = agent_of("--algorithm", "ppo", "--scaling", "ewma"), agent_of("--algorithm", "ppo-ewma")
    assert by_scaling == by_name
    assert by_name.proximal_decay == 0.9
    with pytest.raises(ConfigError, match="--proximal-decay is for PPO-EWMA: add --algorithm ppo-ewma"):
        agent_of("--algorithm", "ppo")
    with pytest.raises(ConfigError, match="ppo-ewma scales by ewma"):
        agent_of("--algorithm", "ppo-ewma", "--scaling", "count")
