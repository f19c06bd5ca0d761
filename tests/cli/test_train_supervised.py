"""One run of a large model on files in the layout of CIFAR-10, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_scaling.cli import main
from rl_scaling.store import load_runs
from tests.domains.supervised.conftest import offline  # noqa: F401, the fixture
from tests.domains.supervised.data.parquet import digit_pictures, write

pytestmark = pytest.mark.usefixtures("offline")
TRAIN = ["train", "supervised", "--threads", "1", "--json"]


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
    assert "batch 8 at first, adaptive r=50" in capsys.readouterr().err
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
