"""Broken, foreign and newer files: one line that says what to do, and never the loss of the other runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rl_scaling.store import Store, StoreError, StoreWarning, list_runs, load_runs
from rl_scaling.store.rows import encode_record
from tests.store.builders import PROVENANCE, atari, record

GOOD, BAD = atari(seed=1), atari(seed=2)
NEWER = r"was written by schema 7, this version reads up to 3: upgrade rl-scaling"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a sealed run that is to stay readable, and an interrupted one to be damaged."""
    store = Store(tmp_path / "store")
    for config in (GOOD, BAD):
        with store.open_run(config, PROVENANCE) as writer:
            for updates in (1, 2, 3):
                writer.append(record(updates))
            if config is GOOD:
                writer.seal("done")
    return store


def seal(store: Store) -> None:
    with store.open_run(BAD, PROVENANCE) as writer:
        writer.seal("done")


def change_config(store: Store, **changed: object) -> None:
    path = store.root / BAD.run_id / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def break_line(store: Store) -> None:
    (store.root / BAD.run_id / "records.jsonl").write_bytes(encode_record(record(1)) + b"rubbish\n")


def break_config(store: Store) -> None:
    (store.root / BAD.run_id / "config.json").write_text('{"schema": 1, "run')


def list_in_config(store: Store) -> None:
    (store.root / BAD.run_id / "config.json").write_text("[]")


def newer_config(store: Store) -> None:
    change_config(store, schema=7, config="a form that nobody knows yet")


def nonsense_config(store: Store) -> None:
    change_config(store, identity=None, config={"environment": {"kind": "chess"}})


def rewrite_metadata(store: Store, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    seal(store)
    path = store.root / BAD.run_id / "records.parquet"
    table = pq.read_table(path)
    document = change(json.loads(table.schema.metadata[b"rl_scaling"]))
    pq.write_table(table.replace_schema_metadata({"rl_scaling": json.dumps(document)}), path)


def newer_seal(store: Store) -> None:
    rewrite_metadata(store, lambda document: {"schema": 7, "run": document["run_id"]})


def seal_without_config(store: Store) -> None:
    rewrite_metadata(store, lambda document: {"schema": 1})


def foreign_table(store: Store) -> None:
    pq.write_table(pa.table({"a": [1]}), store.root / BAD.run_id / "records.parquet")


def no_table(store: Store) -> None:
    (store.root / BAD.run_id / "records.parquet").write_text("score,frames\n")


def cut_table(store: Store) -> None:
    seal(store)
    path = store.root / BAD.run_id / "records.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def flip_table(store: Store) -> None:
    seal(store)
    path = store.root / BAD.run_id / "records.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(400) + content[404:])


DAMAGE = [
    (break_line, r"records\.jsonl line 2 is not a record \(.+\): repair or delete that line, or move the run's folder"),
    (break_config, r"config\.json is not readable JSON \(.+\): repair it or move it away"),
    (list_in_config, r"config\.json holds no JSON object: repair it or move it away"),
    (newer_config, rf"config\.json {NEWER}"),
    (nonsense_config, r"config\.json is not a run's config \(.+\): move its folder away"),
    (newer_seal, rf"records\.parquet {NEWER}"),
    (seal_without_config, r"records\.parquet is damaged: move it away; its run can then be started again"),
    (foreign_table, r"records\.parquet was not written by rl-scaling: move it out of the store"),
    (no_table, r"records\.parquet was not written by rl-scaling: move it out of the store"),
    (cut_table, r"records\.parquet is damaged: move it away; its run can then be started again"),
    (flip_table, r"records\.parquet is damaged: move it away; its run can then be started again"),
]
damaged = pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])


@damaged
def test_a_damaged_run_is_left_out_by_name_and_the_others_stay(
    store: Store, damage: Callable[[Store], None], message: str
) -> None:
    whole = load_runs(store.root / GOOD.run_id)
    damage(store)
    with pytest.warns(StoreWarning, match=f"left out: .*{BAD.run_id}/{message}") as warned:
        frame = load_runs(store.root)
    assert len(warned) == 1
    pd.testing.assert_frame_equal(frame, whole)


@damaged
@pytest.mark.filterwarnings("ignore::rl_scaling.store.StoreWarning")
def test_a_damaged_run_asked_for_by_name_is_an_error_and_is_left_alone(
    store: Store, damage: Callable[[Store], None], message: str
) -> None:
    damage(store)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    calls: list[Callable[[], object]] = [lambda: store.read_rows(BAD.run_id)]
    if damage is not flip_table:  # its rows are broken, and those are not looked at before it is refused as done
        calls.append(lambda: store.open_run(BAD, PROVENANCE).close())
    for call in calls:
        with pytest.raises(StoreError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before
    assert store.read_rows(GOOD.run_id)


@pytest.mark.parametrize("damage", [newer_config, newer_seal, break_config, cut_table])
def test_status_of_a_run_that_cannot_be_read_is_an_error(store: Store, damage: Callable[[Store], None]) -> None:
    damage(store)
    with pytest.raises(StoreError, match=BAD.run_id):
        store.status(BAD.run_id)
    with pytest.warns(StoreWarning, match=BAD.run_id):
        assert [info.run_id for info in list_runs(store.root)] == [GOOD.run_id]


def test_a_damaged_run_can_be_replaced_and_is_moved_aside(store: Store) -> None:
    cut_table(store)
    with store.open_run(BAD, PROVENANCE, replace=True) as writer:
        writer.seal("done")
    assert store.status(BAD.run_id) == "done"
    assert (store.root / f"{BAD.run_id}.replaced-1" / "records.parquet").exists()
    assert set(load_runs(store.root)["run_id"]) == {GOOD.run_id}


def test_foreign_files_and_folders_are_none_of_our_business(store: Store) -> None:
    whole = load_runs(store.root)
    (store.root / "notes.txt").write_text("a good run")
    (store.root / "records.jsonl").write_text("not in a run's folder")
    model = store.root / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["Somebody"], "schema": 9}')
    (store.root / GOOD.run_id / "figure.svg").write_text("<svg/>")
    (store.root / "dangling").symlink_to(store.root / "nowhere")
    pd.testing.assert_frame_equal(load_runs(store.root), whole)
    assert store.status("model") is None


def test_a_foreign_file_does_not_hide_the_runs_below_it(store: Store) -> None:
    (store.root / "config.json").write_text('{"editor": "vi"}')
    assert set(load_runs(store.root)["run_id"]) == {GOOD.run_id, BAD.run_id}
    (store.root / "records.parquet").write_text("rubbish")
    with pytest.warns(StoreWarning, match="not written by rl-scaling"):
        assert set(load_runs(store.root)["run_id"]) == {GOOD.run_id, BAD.run_id}


def test_a_folder_renamed_to_another_runs_id_is_not_written_to(store: Store) -> None:
    other = atari(seed=3)
    (store.root / BAD.run_id).rename(store.root / other.run_id)
    with pytest.raises(StoreError, match=f"belongs to run {BAD.run_id}: move its folder away"):
        store.open_run(other, PROVENANCE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"sweep\.json is not readable JSON"),
        ("[]", r"sweep\.json holds no JSON object"),
        ('{"schema": 1}', r"sweep\.json holds no plan"),
        ('{"schema": 7, "plan": {}}', NEWER),
        ('{"plan": {}}', "does not say its schema: repair it or move it away"),
    ],
)
def test_a_plan_that_cannot_be_used_is_an_error(store: Store, text: str, message: str) -> None:
    (store.root / "sweep.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        store.load_plan()


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    missing = tmp_path / "typo"
    for read in (load_runs, list_runs):
        with pytest.raises(StoreError, match=f"no such folder: {re.escape(str(missing))}"):
            read(tmp_path, missing)
        with pytest.raises(StoreError, match="no folder to read runs from: give at least one"):
            read()
