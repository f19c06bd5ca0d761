"""The command line as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rl_scaling import cli
from rl_scaling.cli.interrupt import Interruptible
from rl_scaling.config import SCHEMA_VERSION
from rl_scaling.store import list_runs, provenance
from rl_scaling.store.provenance import code_of

SWEEP = [
    *("sweep", "atari", "--game", "pong", "--network", "small", "--num-envs", "2", "4", "--learning-rates", "1e-3"),
    *("--frames", "400", "--goals", "-21", "-20", "--workers", "2"),
]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sweep of a real game, run by the real command."""
    folder = tmp_path_factory.mktemp("cli") / "pong"
    assert cli.main([*SWEEP, "--out", str(folder)]) == 0
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_sweep_is_run_once_then_read(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *SWEEP, "--out", swept, "--json")
    assert code == 0
    assert [row["status"] for row in json.loads(out)] == ["done", "done"]

    code, out, _ = run(capsys, "status", swept, "--json")
    rows = json.loads(out)
    assert code == 0
    assert {row["batch_size"] for row in rows} == {10, 20}
    assert all(row["status"] == "done" and row["frames"] >= 400 for row in rows)

    code, out, err = run(capsys, "fit", swept, "--json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["goal"] for row in rows] == [-21, -20]
    assert all(row["critical_batch"] is None for row in rows), "400 frames show nothing, and that must be said"
    keys = {"task", "goal", "steps_min", "examples_min", "critical_batch", "critical_batch_low", "critical_batch_high"}
    assert keys | {"status"} <= rows[0].keys()


def test_another_game_in_the_same_store_is_refused(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["breakout" if word == "pong" else word for word in SWEEP]
    code, out, err = run(capsys, *words, "--out", swept)
    assert (code, out) == (2, "")
    assert "holds a sweep of Pong a2c network=small: give another --out" in err
    assert len(err.splitlines()) == 1


def test_another_version_of_the_code_is_named_once(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "warning" not in run(capsys, *SWEEP, "--out", swept)[2]
    (made,) = {code_of(info.provenance) for info in list_runs(swept)}
    monkeypatch.setattr(provenance, "_commit", lambda: "0123456789ab")
    (line,) = [line for line in run(capsys, *SWEEP, "--out", swept)[2].splitlines() if "warning" in line]
    assert f"were made by rl-scaling {made};" in line
    assert "(0123456789ab)" in line


def test_a_run_that_other_code_goes_on_with_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "a2c", "--env-id", "CartPole-v1", "--network", "mlp", "--frames", 4_000, "--out", tmp_path]
    monkeypatch.setattr(Interruptible, "asked", True)
    assert run(capsys, *words)[0] == 1
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "_commit", lambda: "0123456789ab")
    code, _, err = run(capsys, *words)
    assert code == 0
    (line,) = [line for line in err.splitlines() if "warning" in line]
    assert "(0123456789ab)" in line


def test_tables_are_for_people(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 done" in run(capsys, "status", swept)[1]
    assert "Pong a2c network=small" in run(capsys, "fit", swept)[1]


def test_report_is_written(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "report", swept, "--out", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert code == 0
    assert out.strip() == str(tmp_path / "page.html")
    assert "Pong" in (tmp_path / "page.html").read_text()
    assert {path.suffix for path in (tmp_path / "figures").rglob("*.*")} == {".svg", ".pdf", ".png"}


def test_parts_of_the_gradient_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "a2c", "--env-id", "CartPole-v1", "--network", "mlp", "--num-envs", 4, "--frames", "1e3"]
    code, out, _ = run(capsys, *words, "--parts", "--json", "--out", tmp_path)
    assert code == 0
    parts = json.loads(out)["parts"]
    assert set(parts) == {"policy", "value", "entropy"}
    assert all(set(part) == {"noise_scale", "noise_scale_low", "noise_scale_high"} for part in parts.values())
    assert all(part["noise_scale_low"] >= 0 for part in parts.values())


def test_the_page_takes_the_choices_of_fit_and_says_so(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run(capsys, "report", swept, "--out", page, "--horizon", 7, "--confidence", 0.8)[0] == 0
    text = page.read_text()
    assert "--horizon 7 --confidence 0.8" in text
    assert "averaged over 7 finished episodes" in text
    assert "80\N{NO-BREAK SPACE}% interval" in text
    assert run(capsys, "report", swept, "--out", page, "--confidence", 2)[0] == 2


def test_one_run_on_gymnasium(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "a2c", "--env-id", "CartPole-v1", "--network", "mlp", "--num-envs", 4, "--frames", "1e3"]
    words += ["--json", "--out"]
    code, out, err = run(capsys, *words, tmp_path)
    assert code == 0
    assert json.loads(out)["status"] == "done"
    assert json.loads(out)["frames"] >= 1_000
    assert "B_simple" in err
    code, _, err = run(capsys, *words, tmp_path)
    assert code == 1
    assert "already done" in err


def test_ppo_says_what_reuse_does_to_the_noise_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "ppo", "--env-id", "CartPole-v1", "--network", "mlp", "--num-envs", 4, "--frames", "2e3"]
    words += ["--rollout-steps", 16, "--every-updates", 8, "--json", "--out"]
    code, out, _ = run(capsys, *words, tmp_path)
    assert code == 0
    last = json.loads(out)
    assert last["frames_used"] == 4 * last["frames"]
    assert set(last["epochs"]) == {"first", "later"}
    assert all(epoch["noise_scale_low"] >= 0 for epoch in last["epochs"].values())


def test_a_sweep_of_ppo_has_batches_of_minibatches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "atari", "--algorithm", "ppo", "--game", "pong", "--network", "small", "--num-envs", 2, 4]
    words += ["--rollout-steps", 16, "--epochs", 2, "--learning-rates", "1e-3", "--frames", 100, "--workers", 2]
    code, out, _ = run(capsys, *words, "--goals", -21, "--out", tmp_path, "--json")
    assert code == 0
    assert [(row["status"], row["batch_size"]) for row in json.loads(out)] == [("done", 8), ("done", 16)]


def test_quickstart_makes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "quickstart", "--frames", 300, "--digits-epochs", 1, "--out", tmp_path)
    assert code == 0
    page = (tmp_path / "report.html").read_text()
    for domain in ("Noisy quadratic model", "Supervised learning", "Reinforcement learning"):
        assert f"<h2>{domain}</h2>" in page
    assert "<h2>Breakout, a longer sweep</h2>" in page, "the shipped results are part of the tour"
    assert str(tmp_path / "report.html") in err.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("sweep atari --game Braekout", 2, "no game 'Braekout'; nearest: Breakout"),
        ("sweep atari --game Freeway", 2, "Freeway has no goals of its own: name scores to reach"),
        ("sweep atari --game Pong --num-envs 1", 2, "one environment gives no groups to compare"),
        ("sweep atari --game Pong --learning-rates 1e-3 -1e-3", 2, "learning rate -0.001 in the grid"),
        ("sweep atari --game Pong --frames 1.5", 2, "'1.5' is not a whole number"),
        ("sweep atari --game Pong --epochs 2", 2, "--epochs is for PPO: add --algorithm ppo"),
        ("sweep atari --game Pong --reference-rate 0", 2, "learning rate 0.0 in the grid: give positive numbers"),
        ("sweep atari --game Pong --algorithm ppo --num-envs 6 --minibatch-of environments", 2, "minibatches 3 or 6"),
        ("sweep atari --game Pong --algorithm ppo --no-rmsprop-epsilon-inside-root", 2, "is for A2C"),
        ("train ppo --game Pong --num-envs 5 --rollout-steps 3", 2, "give minibatches 3 or 5, or num_envs 4 or 8"),
        ("train a2c", 2, "name one environment"),
        ("train a2c --game Pong --device cuda:0 --frames 100", 2, "no GPU is to be seen"),
        ("train a2c --env-id NoSuchThing-v0 --network mlp", 2, "no environment 'NoSuchThing-v0'"),
        ("train a2c --env-id CartPole-v1 --frames 100", 2, "needs 84 x 84 pixels"),
        ("train a2c --game Pong --learning-rate -1", 2, "learning_rate is -1.0: give a positive number"),
        ("train a2c --game Pong --device foo", 2, "there is no device 'foo'"),
        ("train a2c --game Pong --threads -2", 2, "--threads is -2: give 0 or more"),
        ("sweep atari --game Pong --goals nan", 2, "goal nan is not a score"),
        ("sweep atari --game Pong --workers -1", 2, "--workers is -1"),
        ("sweep atari --game Pong --minutes nan", 2, "--minutes is nan"),
        ("sweep atari --game Pong --device cuda", 2, "no GPU is to be seen"),
        ("sweep atari --game Pong --num-envs 200000 --learning-rates 1e-3", 2, "environments need"),
        ("train a2c --game Pong --num-envs 200000 --frames 100", 2, "a run of 200,000 environments needs about"),
        ("train a2c --env-id CartPole-v1 --network mlp --frame-skip 2", 2, "--frame-skip is for Atari"),
        ("temperature --factor 1", 2, "factor is 1.0: give a number above 1"),
        ("temperature --batch-size 60", 2, "batch size 60 does not divide into 8 groups"),
        ("temperature --learning-rate nan", 2, "learning rate is nan"),
        ("temperature --label-noise 2", 2, "give a label noise between 0 and 1"),
        ("temperature --phase-updates 2", 2, "give 8 or more"),
        ("fit nowhere", 1, "no such folder: nowhere"),
        ("report .", 1, "no recorded rows in ."),
        ("status .", 1, "no runs in ."),
        ("fit", 2, "name a folder"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    words: str,
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = run(capsys, *words.split())
    assert found == code
    assert message in err
    assert out == ""
    assert len([line for line in err.splitlines() if line.startswith("rl-scaling:")]) == 1
    assert "Traceback" not in err
    assert list(tmp_path.rglob("config.json")) == [], "what cannot be run must leave nothing behind"
    assert not (tmp_path / "runs").exists()


def test_temperature_writes_its_numbers_and_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["temperature", "--what", "both", "--pretrain-updates", 10, "--phase-updates", 60, "--json"]
    code, out, _ = run(capsys, *words, "--out", tmp_path / "t")
    assert code == 0
    (found,) = json.loads(out)["runs"]
    assert found["expected_ratio"] == pytest.approx(16)
    assert [(phase["phase"], phase["batch_size"]) for phase in found["phases"]] == [
        ("before", 64),
        ("during", 256),
        ("after", 64),
    ]
    assert json.loads((tmp_path / "t" / "temperature.json").read_text()) == json.loads(out)
    assert {path.name for path in (tmp_path / "t").iterdir()} == {
        f"temperature.{end}" for end in ("json", "pdf", "png", "svg")
    }


def test_temperature_is_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "temperature", "--pretrain-updates", 0, "--phase-updates", 8, "--what", "learning-rate")
    assert code == 0
    assert "1/T rose by 16" in out


def test_unknown_options_exit_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["sweep", "atari", "--gaem", "Pong"])
    assert caught.value.code == 2


def test_a_newer_schema_is_named(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads((swept / "sweep.json").read_text())
    plan["schema"] = SCHEMA_VERSION + 1
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    code, _, err = run(capsys, "status", tmp_path)
    assert code == 1
    assert f"schema {SCHEMA_VERSION + 1}" in err
    assert "upgrade rl-scaling" in err


def test_help_is_quick_and_needs_no_torch() -> None:
    script = "import sys, rl_scaling.cli; sys.exit('torch' in sys.modules or 'stable_baselines3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
