"""`rl-scaling measure` and --measure-at goals, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rl_scaling.cli.live import Interruptible
from rl_scaling.store import Store, list_runs, load_runs
from rl_scaling.store.files import CHECKPOINT_FILE, kept_checkpoints
from tests.cli.commands import run

CARTPOLE = ["--env-id", "CartPole-v1", "--network", "mlp"]
SHORT = [
    *("--num-envs", 6, "--max-frames", 300, "--pooled-frames", 100, "--groups", 3, "--curvature-splits", 1),
    *("--frame-gradients", 1, "--threads", 1),
]
TRAIN = ["train", "a2c", *CARTPOLE, "--num-envs", 4, "--frames", 1_600, "--record-every-frames", 200, "--threads", 1]


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements that nobody gives options for."""
    monkeypatch.setattr("rl_scaling.cli.measure.NUM_ENVS", 6)
    monkeypatch.setattr("rl_scaling.cli.measure.SETTLE_STEPS", 5)


def test_the_policy_at_the_start_is_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["measure", *CARTPOLE, *SHORT, "--seeds", 0, 1, "--out", tmp_path]
    code, out, err = run(capsys, *words)
    assert code == 0
    assert out.count("at the start") == 2
    assert "300 frames" in err or "frames/s" in err
    code, out, err = run(capsys, *words, "--json")
    assert err.count("measured before") == 2
    first, second = json.loads(out)
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["task"] == "CartPole-v1 a2c network=mlp"
    assert first["frames"] >= 300
    assert first["noise_scale_low"] is not None
    code, again, err = run(capsys, "measure", tmp_path, "--json")
    assert code == 0
    assert err.count("measured before") == 2
    assert json.loads(again) == [first, second], "a folder of measurements is shown"
    code, _, err = run(capsys, "measure", tmp_path, "--until-factor", 1.5)
    assert (code, "how they are made stays" in err) == (2, True)


def test_a_network_that_fits_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "measure", "--env-id", "CartPole-v1", *SHORT, "--json", "--out", tmp_path)
    assert code == 0
    assert "the network is mlp" in err
    assert json.loads(out)[0]["task"] == "CartPole-v1 a2c network=mlp"


def test_atari_games_and_ppo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["measure", "--game", "pong", "--algorithm", "ppo", "--network", "small", "--rollout-steps", 8]
    words += ["--max-start-steps", 10, *SHORT, "--json", "--out", tmp_path]
    code, out, _ = run(capsys, *words)
    assert code == 0
    (row,) = json.loads(out)
    assert row["problem"] == "Pong"
    assert row["algorithm"] == "ppo"


def test_an_interrupted_measurement_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["measure", *CARTPOLE, *SHORT, "--out", tmp_path]
    monkeypatch.setattr(Interruptible, "asked", True)
    code, _, err = run(capsys, *words)
    assert code == 1
    assert "the same command resumes it" in err
    monkeypatch.undo()
    assert run(capsys, *words)[0] == 0
    (info,) = list_runs(tmp_path)
    assert info.status == "done"


def test_weights_are_kept_at_goals_and_measured_and_the_run_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten(monkeypatch)
    monkeypatch.setattr("rl_scaling.domains.rl.config.FrozenConfig.__init__", _short_measurements())
    code, out, _ = run(capsys, *TRAIN, "--measure-at", "goals", "--goals", 15, 5_000, "--out", tmp_path / "with")
    assert code == 0
    assert "at 15" in out
    assert "after 1," in out
    runs = {info.identity.frozen: info for info in list_runs(tmp_path / "with")}
    assert set(kept_checkpoints(runs[False].directory)) == {"15", "end"}
    assert not (runs[False].directory / CHECKPOINT_FILE).exists()

    assert run(capsys, *TRAIN, "--out", tmp_path / "without")[0] == 0
    (plain,) = list_runs(tmp_path / "without")
    clock = ["wall_seconds", "frames_per_second"]

    def rows(folder: str, run_id: str) -> list[dict[str, object]]:
        records = Store(tmp_path / folder).read_rows(run_id)
        return [{name: str(value) for name, value in vars(r).items() if name not in clock} for r in records]

    assert rows("with", runs[False].run_id) == rows("without", plain.run_id)
    # Other commands count it among what was measured, not among what was learned.
    code, out, _ = run(capsys, "fit", tmp_path / "with", "--goals", 15)
    assert code == 0
    assert "weights kept" in out
    assert "frozen" not in out
    code, out, _ = run(capsys, "measure", tmp_path / "with", "--front", "--json")
    assert code == 0
    assert [row["goal"] for row in json.loads(out)] == [15]


def _short_measurements() -> Callable[..., None]:
    from rl_scaling.domains.rl.config import FrozenConfig

    original = FrozenConfig.__init__
    short = {"frames": 200, "pooled_frames": 100, "groups": 3, "curvature_splits": 1, "frame_gradients": 1}

    def make(self: FrozenConfig, **options: object) -> None:
        original(self, **(short | options))  # pyright: ignore[reportArgumentType]

    return make


def test_a_sweep_keeps_weights_for_its_fronts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten(monkeypatch)
    monkeypatch.setattr("rl_scaling.domains.rl.config.FrozenConfig.__init__", _short_measurements())
    words = ["sweep", "rl", "--game", "pong", "--network", "small", "--num-envs", 2, "--learning-rates", "1e-3"]
    words += ["--frames", 400, "--goals", -21, "--executor", "serial", "--max-start-steps", 10, "--out", tmp_path]
    code, _, err = run(capsys, *words, "--measure-at", "goals")
    assert code == 0
    assert "no run of the fronts kept its weights" in err  # no game has ended yet, and so no goal is reached
    infos = list_runs(tmp_path)
    learned = [info for info in infos if not info.identity.frozen]
    assert len(learned) == 1
    assert "end" in kept_checkpoints(learned[0].directory)
    # What was measured in its folder does not put a sweep off.
    assert run(capsys, "measure", tmp_path)[0] == 0
    infos = list_runs(tmp_path)
    assert sum(info.identity.frozen for info in infos) == 1
    assert run(capsys, *words, "--measure-at", "goals")[0] == 0
    assert len(load_runs(tmp_path)["run_id"].unique()) == len(infos)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*CARTPOLE, "--num-envs", "1"], "one environment gives no groups"),
        (["--game", "Pong", *CARTPOLE], "give --game or --env-id, not both"),
        ([], "name one environment"),
        (["--game", "Pong", "--run", "abc"], "--run and --front are about runs"),
        ([*CARTPOLE, "--epochs", "3"], "--epochs is not for a2c"),
        ([*CARTPOLE, "--groups", "1"], "the noise scale needs 2 groups or more"),
        (["--game", "Pong", "--algorithm", "dqn"], "no algorithm 'dqn'"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "measure", *words)
    assert code == 2
    assert message in err


def test_runs_without_weights_are_refused(tmp_path: Path, pong_sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected, message in (
        ([pong_sweep], 1, "a finished run keeps none unless it was trained with --measure-at goals"),
        ([pong_sweep, "--run", "nosuch"], 1, "no run 'nosuch'"),
        ([tmp_path / "none"], 1, "no such folder"),
        ([pong_sweep, "--game", "Pong"], 2, "not both"),
        ([pong_sweep, "--network", "small"], 2, "leave options of agents and games out"),
    ):
        code, _, err = run(capsys, "measure", *words)
        assert code == expected
        assert message in err
    code, _, err = run(capsys, *TRAIN, "--goals", 5, "--out", tmp_path)
    assert code == 2
    assert "add --measure-at goals" in err
    code, _, err = run(capsys, *TRAIN, "--measure-at", "goals", "--out", tmp_path)
    assert code == 2
    assert "has no goals of its own" in err
