"""Many runs as one table: the right rows, columns and types, wherever the runs lie."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_scaling.agents.config import A2CConfig
from rl_scaling.config import to_dict
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs.config import AtariConfig
from rl_scaling.records import COLUMNS, IN_A_TABLE, LossRecord, Record, TrainingRecord, fields_of, to_row
from rl_scaling.store import SealedStatus, Store, StoreError, StoreWarning, disk, list_runs, load_runs
from rl_scaling.store.files import new_document, write_sealed
from tests.store.builders import INTEGERS, PROVENANCE, Descent, all_bits, atari, cartpole, loss_record, record

IDENTITY = [
    *("run_id", "store", "status", "note", "task", "domain", "problem", "algorithm", "variant"),
    *("budget_amount", "budget_unit", "unit", "quantity", "batch_size", "learning_rate", "setting", "exchange_rate"),
    "seed",
]
COUNTS = [IN_A_TABLE.get(name, name) for name in INTEGERS]


def write(root: Path, config: RunConfig, rows: int, status: SealedStatus | None = "done", note: str = "") -> Path:
    with Store(root).open_run(config, PROVENANCE) as writer:
        for updates in range(1, rows + 1):
            writer.append(record(updates, score=updates + config.seed / 8))
        if status:
            writer.seal(status, note)
    return root / config.run_id


def in_a_table(record: Record) -> dict[str, Any]:
    """A record's row, with the columns of the other type empty."""
    row = {IN_A_TABLE.get(name, name): value for name, value in to_row(record).items()}
    return {name: 0 if name in COUNTS else float("nan") for name in COLUMNS} | row


def naive_table(root: Path, runs: list[tuple[RunConfig, int, str, str]]) -> list[dict[str, Any]]:
    """The same table, a dictionary at a time."""
    table = []
    for config, rows, status, note in sorted(runs, key=lambda run: run[0].run_id):
        plain = to_dict(config)
        fields = {f"{part}.{k}": v for part in ("environment", "agent", "noise_scale") for k, v in plain[part].items()}
        fields |= {f"config.{name}": plain[name] for name in ("frames", "seed", "record_every_frames")}
        own = {"run_id": config.run_id, "store": str(root), "status": status, "note": note, "task": config.task}
        own |= {"batch_size": config.batch_size, "learning_rate": config.agent.learning_rate, "seed": config.seed}
        own |= {"setting": "", "unit": "frames", "quantity": "score", "domain": "rl", "algorithm": "a2c"}
        own |= {"problem": getattr(config.environment, "game", "") or getattr(config.environment, "env_id", "")}
        own |= {"variant": config.task.removeprefix(f"{own['problem']} a2c").strip()}
        own |= {"budget_amount": float("nan"), "budget_unit": "", "exchange_rate": float("nan")}
        for updates in range(1, rows + 1):
            table.append(own | fields | in_a_table(record(updates, score=updates + config.seed / 8)))
    return table


def test_every_row_of_every_run_with_its_identity(tmp_path: Path) -> None:
    runs = [
        (atari(0), 3, "done", ""),
        (atari(1, learning_rate=0.01), 2, "diverged", "the loss was not finite"),
        (atari(2), 0, "stopped", "it could not win"),
        (cartpole(3), 4, "interrupted", ""),
    ]
    for config, rows, status, note in runs:
        sealed: dict[str, SealedStatus] = {"done": "done", "diverged": "diverged", "stopped": "stopped"}
        write(tmp_path, config, rows, sealed.get(status), note)
    frame = load_runs(tmp_path)
    wanted = naive_table(tmp_path, runs)
    assert len(frame) == len(wanted) == 9
    assert list(frame.columns[: len(IDENTITY)]) == IDENTITY
    assert tuple(frame.columns[-len(COLUMNS) :]) == COLUMNS
    assert set(frame.columns) == {name for row in wanted for name in row}
    assert frame.columns.is_unique
    assert list(frame.index) == list(range(9))
    for position, row in enumerate(wanted):
        for name in frame.columns:
            value = frame[name].iloc[position]
            if pd.isna(value):
                assert pd.isna(row.get(name))
            else:
                assert value == row[name], (name, position)


def test_columns_have_the_types_of_their_fields(tmp_path: Path) -> None:
    write(tmp_path, atari(), 2)
    frame = load_runs(tmp_path)
    integers = [*COUNTS, "batch_size", "seed", "environment.num_envs", "agent.rollout_steps", "config.frames"]
    assert {str(frame[name].dtype) for name in integers} == {"int64"}
    floats = [*(set(COLUMNS) - set(COUNTS)), "learning_rate", "agent.learning_rate", "agent.discount"]
    assert {str(frame[name].dtype) for name in floats} == {"float64"}
    assert {str(frame[name].dtype) for name in ("environment.life_loss_terminates",)} == {"bool"}
    strings = ["run_id", "store", "status", "note", "task", "environment.kind", "agent.network"]
    assert {str(frame[name].dtype) for name in strings} == {str(pd.Series(["a"]).dtype)}


def test_fields_that_some_runs_lack_are_missing_values_there(tmp_path: Path) -> None:
    write(tmp_path, atari(), 1)
    write(tmp_path, cartpole(), 1)
    frame = load_runs(tmp_path).set_index("environment.kind")
    assert str(frame["environment.frame_skip"].dtype) == "Int64"
    assert str(frame["environment.life_loss_terminates"].dtype) == "boolean"
    assert str(frame["environment.sticky_action_probability"].dtype) == "float64"
    assert frame["environment.frame_skip"]["atari"] == 4
    assert frame["environment.env_id"]["gymnasium"] == "CartPole-v1"
    missing = ["environment.game", "environment.frame_skip", "environment.life_loss_terminates"]
    assert all(pd.isna(frame[name]["gymnasium"]) for name in missing)
    assert str(frame["environment.num_envs"].dtype) == "int64"


def test_no_runs_are_an_empty_frame_with_the_columns_or_an_error(tmp_path: Path) -> None:
    frame = load_runs(tmp_path)
    assert frame.empty
    assert list(frame.columns) == [*IDENTITY, *COLUMNS]
    write(tmp_path / "full", atari(), 1)
    full = load_runs(tmp_path / "full")
    assert dict(frame.dtypes) == dict(full[frame.columns].dtypes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"no recorded rows in .*empty: run a sweep there first"):
        load_runs(tmp_path / "empty", allow_empty=False)
    write(tmp_path / "no rows", atari(1), 0)
    assert load_runs(tmp_path / "no rows").empty
    with pytest.raises(StoreError, match="no recorded rows"):
        load_runs(tmp_path / "no rows", allow_empty=False)
    assert len(load_runs(tmp_path / "no rows", tmp_path / "full", allow_empty=False)) == 1


def test_runs_are_found_at_any_depth_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pong, other = tmp_path / "games" / "pong", tmp_path / "games" / "deep" / "er" / "other"
    run = write(pong, atari(0), 2)
    write(other, atari(1), 3)
    everything = load_runs(tmp_path)
    assert len(everything) == 5
    assert set(everything["store"]) == {str(pong), str(other)}
    (tmp_path / "games" / "loop").symlink_to(tmp_path)
    for paths in ([tmp_path / "games"], [pong, other], [str(run), other], [tmp_path, pong, run], [other, tmp_path]):
        pd.testing.assert_frame_equal(load_runs(*paths).drop(columns="store"), everything.drop(columns="store"))
    only = load_runs(run)
    assert len(only) == 2
    assert set(only["store"]) == {str(pong)}
    monkeypatch.chdir(run)
    here = load_runs(".")
    assert len(here) == 2
    assert set(here["store"]) == {str(pong.resolve())}


def test_a_store_behind_a_link_is_found(tmp_path: Path) -> None:
    write(tmp_path / "scratch", atari(), 2)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "runs").symlink_to(tmp_path / "scratch")
    assert set(load_runs(tmp_path / "project")["store"]) == {str(tmp_path / "project" / "runs")}


def test_the_sealed_file_alone_is_the_whole_run(tmp_path: Path) -> None:
    run = write(tmp_path / "store", atari(), 2)
    shipped = tmp_path / "results" / "a name of my own"
    shipped.mkdir(parents=True)
    shutil.copy(run / "records.parquet", shipped)
    pd.testing.assert_frame_equal(
        load_runs(tmp_path / "results").drop(columns="store"), load_runs(tmp_path / "store").drop(columns="store")
    )
    assert list_runs(tmp_path / "results")[0].provenance == PROVENANCE


def test_of_two_copies_of_a_run_the_better_one_counts(tmp_path: Path) -> None:
    long, short, sealed = (tmp_path / name for name in ("a", "b", "c"))
    write(long, atari(), 3, None)
    write(short, atari(), 2, None)
    for paths in ((long, short), (short, long)):
        with pytest.warns(StoreWarning, match=rf"b/{atari().run_id} is left out: .*a/{atari().run_id} holds the same"):
            assert len(load_runs(*paths)) == 3
    write(sealed, atari(), 1)
    with pytest.warns(StoreWarning, match="is left out") as warned:
        frame = load_runs(tmp_path)
    assert len(warned) == 2
    assert set(frame["store"]) == {str(sealed)}
    with pytest.warns(StoreWarning, match="is left out"):
        assert [info.directory.parent for info in list_runs(tmp_path)] == [sealed]


def test_replaced_and_hidden_runs_count_only_when_named(tmp_path: Path) -> None:
    run = write(tmp_path, atari(), 2)
    with Store(tmp_path).open_run(atari(), PROVENANCE, replace=True) as writer:
        writer.append(record(1))
    shutil.copytree(run, tmp_path / ".trash" / run.name)
    assert len(load_runs(tmp_path)) == 1
    assert len(load_runs(tmp_path / f"{run.name}.replaced-1")) == 2


def test_a_run_is_in_the_table_while_it_goes(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(atari(), PROVENANCE) as writer:
        assert load_runs(tmp_path).empty
        writer.append(record(1))
        frame = load_runs(tmp_path)
        assert list(frame["status"]) == ["running"]
    assert list(load_runs(tmp_path)["status"]) == ["interrupted"]


def test_list_runs_has_runs_without_rows(tmp_path: Path) -> None:
    write(tmp_path, atari(0), 0, "diverged", "at once")
    write(tmp_path, atari(1), 0, None)
    infos = {info.run_id: info for info in list_runs(tmp_path)}
    assert {info.status for info in infos.values()} == {"diverged", "interrupted"}
    assert infos[atari(0).run_id].note == "at once"


def test_a_table_can_be_grouped_by_its_identity(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, atari(seed), 2)
    last = load_runs(tmp_path).groupby(["task", "batch_size", "learning_rate"])["score"].max()
    assert last.to_dict() == {("Pong a2c", 20, 7e-4): 2 + 2 / 8}


def test_runs_of_every_domain_are_one_table(tmp_path: Path) -> None:
    write(tmp_path, atari(), 2)
    with Store(tmp_path).open_run(Descent(), PROVENANCE) as writer:
        for updates in range(3):
            writer.append(loss_record(updates))
        writer.seal("done")
    frame = load_runs(tmp_path).set_index("task")
    losses, scores = frame.loc["a slope"], frame.loc["Pong a2c"]
    assert losses[["unit", "quantity", "setting"]].drop_duplicates().to_numpy().tolist() == [
        ["examples", "loss", "momentum=0.9"]
    ]
    assert losses["loss"].tolist() == [1, 1 / 2, 1 / 3]
    assert losses["examples"].tolist() == [0, 8, 16]
    assert losses["config.momentum"].tolist() == [0.9] * 3
    assert losses["episodes"].tolist() == [0] * 3, "a count that a type of record lacks is 0"
    assert losses["score"].isna().all()
    assert scores["loss"].isna().all()
    assert scores["examples"].tolist() == [20, 40]
    assert str(frame["episodes"].dtype) == "int64"
    only = set(fields_of(LossRecord)) - {IN_A_TABLE.get(name, name) for name in fields_of(TrainingRecord)}
    own = {"loss", "training_loss", "validation_loss", "validation_accuracy"}
    assert only == own, "what means the same has the same name"


def test_runs_of_losses_go_on_where_they_stopped(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(Descent(), PROVENANCE) as writer:
        writer.append(loss_record(0))
        writer.append(loss_record(4))
        with pytest.raises(StoreError, match="takes rows of type LossRecord alone"):
            writer.append(record(5))
    assert load_runs(tmp_path)["loss"].tolist() == [1, 1 / 5]
    with Store(tmp_path).open_run(Descent(), PROVENANCE) as writer:
        assert all_bits(writer.rows) == all_bits([loss_record(0), loss_record(4)])
        writer.keep_rows(0)
    assert load_runs(tmp_path)["loss"].tolist() == [1]


def test_files_of_schema_1_count_frames_and_have_goals_of_the_score(tmp_path: Path) -> None:
    run = write(tmp_path, atari(), 2, None)
    document = json.loads((run / "config.json").read_text()) | {"schema": 1}
    for name in ("setting", "unit", "quantity"):
        del document["identity"][name]
    (run / "config.json").write_text(json.dumps(document))
    frame = load_runs(tmp_path)
    assert frame[["setting", "unit", "quantity"]].drop_duplicates().to_numpy().tolist() == [["", "frames", "score"]]
    with Store(tmp_path).open_run(atari(), PROVENANCE) as writer:
        writer.append(record(3))
        writer.seal("done")
    assert load_runs(tmp_path)["updates"].tolist() == [1, 2, 3]


@pytest.mark.slow
def test_ten_thousand_runs_are_read_in_half_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "sync", lambda path: None)
    values = np.random.default_rng(0).normal(size=200)
    rows = [record(i, score=float(v), entropy=float(v) ** 2, policy_loss=float(v) / 3) for i, v in enumerate(values)]
    for seed in range(10_000):
        config = RunConfig(environment=AtariConfig(game="Pong"), agent=A2CConfig(), seed=seed)
        folder = tmp_path / config.run_id
        folder.mkdir()
        write_sealed(folder / "records.parquet", new_document(config, PROVENANCE) | {"status": "done"}, rows)
    # CPU time, so that busy neighbours on the machine do not count.
    start_seconds = time.process_time()
    frame = load_runs(tmp_path)
    cpu_seconds = time.process_time() - start_seconds
    assert len(frame) == 2_000_000
    assert cpu_seconds < 30
