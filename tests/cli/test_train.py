"""One run of any domain, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_scaling.cli import main
from rl_scaling.cli.live import Interruptible
from rl_scaling.store import load_runs, provenance
from tests.cli.commands import run
from tests.domains.supervised.conftest import offline  # noqa: F401, the fixture
from tests.domains.supervised.data.parquet import digit_pictures, write

TRAIN = ["train", "supervised", "--threads", "1", "--json"]


def test_a_run_that_other_code_resumes_says_so(
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


def test_parts_of_the_gradient_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "a2c", "--env-id", "CartPole-v1", "--network", "mlp", "--num-envs", 4, "--frames", "1e3"]
    code, out, _ = run(capsys, *words, "--parts", "--json", "--out", tmp_path)
    assert code == 0
    parts = json.loads(out)["parts"]
    assert set(parts) == {"policy", "value", "entropy"}
    assert all(set(part) == {"noise_scale", "noise_scale_low", "noise_scale_high"} for part in parts.values())
    assert all(part["noise_scale_low"] >= 0 for part in parts.values())


def test_one_run_on_gymnasium(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "a2c", "--env-id", "CartPole-v1", "--network", "mlp", "--num-envs", 4, "--frames", "1e3"]
    words += ["--json", "--out"]
    code, out, err = run(capsys, *words, tmp_path)
    assert code == 0
    assert json.loads(out)["status"] == "done"
    assert json.loads(out)["frames"] >= 1_000
    assert "B_simple" in err
    code, again, err = run(capsys, *words, tmp_path)
    assert (code, json.loads(again)) == (0, json.loads(out))
    assert "it was trained before, and is left as it is: --replace trains it again" in err


def test_the_network_follows_from_what_is_observed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "a2c", "--env", "FrozenLake-v1", "--num-envs", 2, "--frames", 20, "--out", tmp_path]
    code, _, err = run(capsys, *words)
    assert code == 0
    assert "observations of FrozenLake-v1 have the shape (16,): the network is mlp" in err
    assert load_runs(tmp_path)["agent.network"].unique().tolist() == ["mlp"]


def test_the_beginning_of_a_longer_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "a2c", "--env-id", "CartPole-v1", "--network", "mlp", "--num-envs", 4, "--frames", "1e6"]
    words += ["--learning-rate-schedule", "linear", "--record-every-frames", 100, "--json", "--out", tmp_path]
    for asked in (200, 400):
        code, out, err = run(capsys, *words, "--stop-at", asked)
        assert (code, json.loads(out)["status"]) == (0, "stopped")
        assert asked <= json.loads(out)["frames"] < asked + 100
        assert "trained before" not in err
    code, again, err = run(capsys, *words)
    assert (code, json.loads(again)) == (0, json.loads(out)), "to train on, a larger number is given"
    assert "trained before" in err


def test_ppo_says_what_reuse_does_to_the_noise_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "ppo", "--env-id", "CartPole-v1", "--network", "mlp", "--num-envs", 4, "--frames", "2e3"]
    words += ["--rollout-steps", 16, "--every-updates", 8, "--json", "--out"]
    code, out, _ = run(capsys, *words, tmp_path)
    assert code == 0
    last = json.loads(out)
    assert last["frames_used"] == 4 * last["frames"]
    assert set(last["epochs"]) == {"first", "later"}
    assert all(epoch["noise_scale_low"] >= 0 for epoch in last["epochs"].values())


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """160 images to train on and 100 to test on, digits in the files and the size of CIFAR-10."""
    pictures, labels = digit_pictures(range(260))
    write(tmp_path / "plain_text" / "train-00000-of-00001.parquet", pictures[:160], labels[:160], image="img")
    write(tmp_path / "plain_text" / "test-00000-of-00001.parquet", pictures[160:], labels[160:], image="img")
    return tmp_path


def test_resnet32_trains_on_local_files_and_is_not_trained_again(
    cifar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*TRAIN, "--dataset", "owner/cifar", "--folder", str(cifar), "--model", "resnet32", "--augment"]
    command += ["--label-smoothing", "0.1", "--schedule", "halving", "--batch-size", "32", "--epochs", "0.5"]
    command += ["--out", str(tmp_path / "runs")]
    assert main(command) == 0
    first = capsys.readouterr()
    row = json.loads(first.out)
    assert (row["status"], row["updates"]) == ("done", 3)
    assert 0 <= row["validation_accuracy"] <= 1
    assert main(command) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == row
    assert "right" in first.err
    assert "right" not in again.err


def test_divergence_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--learning-rate", "1e30", "--epochs", "1", "--out", str(tmp_path)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["status"] == "diverged"
    assert row["updates"] <= 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--batch-size", "1201"], "a batch of 1,201 is larger than the 1,200 training examples"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--model", "vgg11"], "needs images of 32 x 32 pixels or more, not 8 x 8"),
        (["--model", "perceptron"], "no model 'perceptron'"),
        (["--dropout", "0.5"], "model 'mlp' does not take these options"),
        (["--dataset", "cifar10", "--folder", "/nowhere"], "/nowhere"),
        (["--schedule", "triggered"], "needs some"),
        (["--learning-rate", "0"], "learning_rate is 0"),
        (["--epochs", "-1"], "epochs"),
        (["--seed", "-1"], "seed is -1"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--out", str(tmp_path / "runs"), *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert complaint in said[-1]
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("what", ["no labels", "a class is missing"])
def test_data_without_labels_or_a_class_are_refused(
    what: str, cifar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, labels = digit_pictures(range(160))
    file = cifar / "plain_text" / "train-00000-of-00001.parquet"
    if what == "no labels":
        write(file, pictures, labels, image="img", label="other")
    else:
        kept = [place for place, label in enumerate(labels) if label != 3]
        write(file, [pictures[place] for place in kept], [labels[place] for place in kept], image="img")
    assert main([*TRAIN, "--dataset", "owner/cifar", "--folder", str(cifar), "--out", str(tmp_path / "runs")]) == 2
    assert ("label" if what == "no labels" else "class 3") in capsys.readouterr().err


def test_fit_puts_it_beside_the_front_of_fixed_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "supervised", "--threads", "1", "--out", str(tmp_path), "--optimizer", "sgd", "--epochs", "5"]
    train += ["--sampling", "replacement", "--noise-every-updates", "2"]
    for size, rate in ((8, 0.1), (32, 0.2), (128, 0.35)):
        assert main([*train, "--batch-size", str(size), "--learning-rate", str(rate)]) == 0
    adaptive = ["--batch-size", "8", "--learning-rate", "0.1", "--adaptive", "50", "--window-measurements", "20"]
    assert main([*train, *adaptive]) == 0
    assert "batch 8 examples at first, adaptive r=50" in capsys.readouterr().err
    assert set(load_runs(tmp_path)["task"]) == {"digits-mlp sgd"}
    assert main(["fit", str(tmp_path), "--goals", "1.0", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["task"] == "digits-mlp sgd"
    (beside,) = row["adaptive"]
    assert beside["setting"] == "adaptive r=50 measure_every_updates=2 window_measurements=20"
    assert beside["gamma_observed"] >= 0
    assert 8 < beside["batch_size"] < 1024


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--max-batch-size", "64"], "--max-batch-size is for an adaptive batch: give --adaptive R as well"),
        (["--adaptive", "-1"], "exchange_rate is -1.0"),
        (["--adaptive", "50", "--schedule", "halving"], "give a constant schedule"),
        (["--adaptive", "50", "--noise-every-updates", "-1"], "--noise-every-updates is -1"),
    ],
)
def test_bad_options_of_an_adaptive_batch_are_one_line(
    options: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "supervised", "--out", str(tmp_path), *options]) == 2
    assert complaint in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    ["--alternate", "--adaptive 300 --min-envs 4 --max-envs 8 --group-envs 4 --no-minimal-actions", "--threads 1"],
)
def test_minatar_trains_with_its_own_network(options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "a2c", "--game", "minatar/space-invaders", "--num-envs", 4, "--frames", 500, "--out", tmp_path]
    code, out, err = run(capsys, *words, *options.split(), "--json")
    assert code == 0
    assert "minatar/space_invaders a2c" in err
    assert "network=minatar" in err
    assert json.loads(out)["frames"] >= 500
    (row,) = load_runs(tmp_path).to_dict("records")[-1:]
    assert (row["environment.game"], row["environment.sticky_action_probability"]) == ("space_invaders", 0.1)
    assert row["environment.difficulty_ramping"]
    assert row["environment.minimal_actions"] == ("--no-minimal-actions" not in options)
