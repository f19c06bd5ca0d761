"""Trackers get every number of every record: read back from real event files, and from an offline run."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
import pytest

from rl_scaling.cli import main
from rl_scaling.domains.nqm.config import NQMConfig
from rl_scaling.domains.nqm.domain import records
from rl_scaling.records import to_row
from rl_scaling.store import Store
from rl_scaling.sweeps.trackers import known_numbers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the trackers' own dependencies


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for rate in (0.5, 1.0):
        config = NQMConfig(optimizer="sgd", batch_size=64, learning_rate=rate, updates=300)
        with store.open_run(config, {}) as writer:
            for record in records(config):
                writer.append(record)
            writer.seal("done")
    return store


def test_tensorboard_reads_every_number_back(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(["export", str(store.root), "--tensorboard", str(tmp_path / "tb")]) == 0
    assert capsys.readouterr().out == "2 runs exported\n"
    assert main(["export", str(store.root), "--tensorboard", str(tmp_path / "tb")]) == 0, "again: replaced"
    capsys.readouterr()
    folders = sorted((tmp_path / "tb").iterdir())
    assert all(len(list(folder.iterdir())) == 1 for folder in folders)
    assert [folder.name for folder in folders] == sorted(p.name for p in store.root.iterdir())
    for folder in folders:
        found = events.EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
        rows = [known_numbers(record) for record in store.read_rows(folder.name)]
        assert set(found.Tags()["scalars"]) == {name for row in rows for name in row}
        for name in ("loss", "updates"):
            scalars = found.Scalars(name)
            assert [s.step for s in scalars] == [row["examples"] for row in rows]
            assert [s.value for s in scalars] == pytest.approx([row[name] for row in rows], rel=1e-6)
        assert "config/text_summary" in found.Tags()["tensors"]


def test_wandb_offline(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert main(["export", str(store.root), "--wandb", "scaling"]) == 0
    runs = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert sorted(path.stem.removeprefix("run-") for path in runs) == sorted(p.name for p in store.root.iterdir())
    content = runs[0].read_bytes()
    for name in (b"grad_sq_norm", b"spectrum_exponent", b"NQM sgd B=64"):
        assert name in content


def test_csv_holds_every_row(store: Store, tmp_path: Path) -> None:
    assert main(["export", str(store.root), "--csv", str(tmp_path / "csv")]) == 0
    ids = sorted(path.name for path in store.root.iterdir())
    assert sorted(path.name for path in (tmp_path / "csv").iterdir()) == [f"nqm-sgd-{run_id}.csv" for run_id in ids]
    rows = pd.read_csv(tmp_path / "csv" / f"nqm-sgd-{ids[0]}.csv", float_precision="round_trip")
    kept = pd.DataFrame([to_row(record) for record in store.read_rows(ids[0])])
    pd.testing.assert_frame_equal(rows, kept, check_exact=True, check_dtype=False)


def test_numbers_that_are_not_known_are_left_out(store: Store) -> None:
    for directory in store.root.iterdir():
        for record in store.read_rows(directory.name):
            assert all(map(math.isfinite, known_numbers(record).values()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a folder of runs"),
        (["."], "say where to: --tensorboard DIR, --wandb PROJECT or --csv DIR"),
    ],
)
def test_bad_input(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_named(
    store: Store, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(store.root), f"--{package}", "x"]) == 2
    assert f"pip install 'rl-scaling[{package}]'" in capsys.readouterr().err.replace("\n", " ")


def test_training_is_seen_while_it_runs(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = (
        "train a2c --env-id CartPole-v1 --network mlp --num-envs 4 --frames 400 --record-every-frames 100 --threads 1"
    )
    folders = ["--out", str(tmp_path / "runs"), "--tensorboard", str(tmp_path / "tb")]
    assert main([*words.split(), *folders]) == 0
    (folder,) = (tmp_path / "tb").iterdir()
    found = events.EventAccumulator(str(folder))
    found.Reload()
    rows = Store(tmp_path / "runs").read_rows(folder.name)
    assert [s.step for s in found.Scalars("grad_norm")] == [known_numbers(row)["frames"] for row in rows]
