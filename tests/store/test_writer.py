"""One run's life: started, interrupted, resumed, sealed, replaced."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.config import SCHEMA_VERSION
from rl_scaling.domains.rl.config import run_config_from_dict
from rl_scaling.records import Record
from rl_scaling.store import RunTakenError, SealedStatus, Store, StoreError, StoreWarning
from rl_scaling.store.files import unseal
from rl_scaling.store.rows import encode_record
from tests.store.builders import PROVENANCE, all_bits, atari, record

CONFIG = atari()
RUN = CONFIG.run_id


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_is_made_before_the_first_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "store")
    assert store.status(RUN) is None
    assert store.info(RUN) is None
    assert store.read_rows(RUN) == []
    assert store.load_plan() is None
    assert list(tmp_path.iterdir()) == []


def test_the_life_of_a_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        assert store.status(RUN) == "running"
        assert writer.rows == ()
        assert writer.checkpoint is None
        writer.append(record(1))
        assert all_bits(store.read_rows(RUN)) == all_bits([record(1)])
        writer.append(record(2))
    assert store.status(RUN) == "interrupted"
    assert set(contents(tmp_path / RUN)) == {"config.json", "records.jsonl"}
    with store.open_run(CONFIG, PROVENANCE) as writer:
        assert all_bits(writer.rows) == all_bits([record(1), record(2)])
        writer.append(record(3))
        writer.save_checkpoint(lambda path: path.write_bytes(b"weights"))
        assert writer.checkpoint == tmp_path / RUN / "checkpoint.pt"
        writer.seal("done", "all frames seen")
    assert store.status(RUN) == "done"
    assert set(contents(tmp_path / RUN)) == {"config.json", "records.parquet"}
    assert all_bits(store.read_rows(RUN)) == all_bits([record(1), record(2), record(3)])


def test_info_tells_the_question_and_where_it_was_asked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(1))
        running = store.info(RUN)
        writer.seal("stopped", "it could not win any more")
    sealed = store.info(RUN)
    assert running is not None
    assert sealed is not None
    for info in (running, sealed):
        assert info.run_id == RUN
        assert info.directory == tmp_path / RUN
        assert run_config_from_dict(info.config) == CONFIG
        assert str(info.identity) == str(CONFIG.identity)  # some of it is NaN
        assert {name: getattr(info.identity, name) for name in ("task", "batch_size", "learning_rate", "setting")} == {
            "task": "Pong a2c",
            "batch_size": 20,
            "learning_rate": 7e-4,
            "setting": "",
        }
        assert (info.identity.seed, info.identity.unit, info.identity.quantity) == (0, "frames", "score")
        assert info.provenance == PROVENANCE
        assert info.resumed == ()
    assert (running.status, running.note) == ("running", "")
    assert (sealed.status, sealed.note) == ("stopped", "it could not win any more")


def test_config_json_has_its_documented_form(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(CONFIG, PROVENANCE):
        pass
    document = json.loads((tmp_path / RUN / "config.json").read_text())
    assert list(document) == ["schema", "run_id", "identity", "config", "provenance", "resumed"]
    assert document["schema"] == SCHEMA_VERSION


def test_a_run_without_an_identity_is_refused_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE):
        pass
    path = tmp_path / RUN / "config.json"
    document = json.loads(path.read_text())
    del document["identity"]
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"config\.json is not a run's config \('identity'\): move its folder away"):
        store.info(RUN)


def test_later_attempts_elsewhere_are_kept_beside_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = {"torch": "2.13.0", "shape": (1, 2)}, {"torch": "2.14.0", "path": tmp_path}
    for provenance in (first, first, second, second, first):
        with store.open_run(CONFIG, provenance):
            pass
    info = store.info(RUN)
    assert info is not None
    plain_first, plain_second = {"torch": "2.13.0", "shape": [1, 2]}, {"torch": "2.14.0", "path": str(tmp_path)}
    assert info.provenance == plain_first
    assert info.resumed == (plain_second, plain_first)
    with store.open_run(CONFIG, first) as writer:
        writer.seal("done")
    sealed = store.info(RUN)
    assert sealed is not None
    assert sealed.resumed == info.resumed


@pytest.mark.parametrize("status", ["done", "diverged", "stopped"])
def test_a_sealed_run_is_refused(tmp_path: Path, status: SealedStatus) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(1))
        writer.seal(status)
    before = contents(tmp_path / RUN)
    with pytest.raises(StoreError, match=rf"{RUN} is already done \(status {status}\): nothing to run"):
        store.open_run(CONFIG, PROVENANCE)
    assert contents(tmp_path / RUN) == before


def test_a_run_that_is_asked_for_by_name_is_moved_aside_not_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = []
    for attempt in range(3):
        with store.open_run(CONFIG, PROVENANCE, replace=True) as writer:
            assert writer.rows == ()
            assert store.status(RUN) == "running"
            writer.append(record(attempt))
            if attempt != 1:
                writer.seal("done")
        kept.append(contents(tmp_path / RUN))
    assert contents(tmp_path / f"{RUN}.replaced-1") == kept[0]
    assert contents(tmp_path / f"{RUN}.replaced-2") == kept[1]
    assert contents(tmp_path / RUN) == kept[2]


def test_only_a_real_seal_is_accepted_and_only_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(1))
        with pytest.raises(StoreError, match="'running': give one of done, diverged, stopped"):
            writer.seal(cast("SealedStatus", "running"))
        assert store.status(RUN) == "running"
        writer.seal("diverged")
        for call in (lambda: writer.seal("done"), lambda: writer.append(record(2)), lambda: writer.keep_rows(0)):
            with pytest.raises(StoreError, match="is closed: open the run again"):
                call()
        with pytest.raises(StoreError, match="is closed"):
            writer.save_checkpoint(lambda path: path.write_bytes(b""))
    assert store.status(RUN) == "diverged"


def test_a_run_without_rows_can_be_sealed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.seal("diverged", "the first loss was not finite")
    assert store.status(RUN) == "diverged"
    assert store.read_rows(RUN) == []


def test_rows_cannot_go_back_in_time_unless_they_are_taken_back(tmp_path: Path) -> None:
    with Store(tmp_path).open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(10))
        writer.append(record(10))
        with pytest.raises(StoreError, match="a row at 9 updates cannot follow one at 10: call keep_rows"):
            writer.append(record(9))
        writer.keep_rows(0)
        writer.append(record(9))
    with Store(tmp_path).open_run(CONFIG, PROVENANCE) as writer, pytest.raises(StoreError, match="cannot follow"):
        writer.append(record(8))


def test_rows_after_the_checkpoint_are_kept_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dropped = tmp_path / RUN / "records.dropped.jsonl"
    with store.open_run(CONFIG, PROVENANCE) as writer:
        for updates in (1, 2, 3, 4):
            writer.append(record(updates))
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.keep_rows(4)
        assert not dropped.exists()
        writer.keep_rows(2)
        assert all_bits(writer.rows) == all_bits([record(1), record(2)])
        writer.append(record(3, score=7.0))
        writer.keep_rows(2)
        writer.append(record(3, score=8.0))
        writer.seal("done")
    assert dropped.read_bytes() == b"".join(map(encode_record, [record(3), record(4), record(3, score=7.0)]))
    assert all_bits(store.read_rows(RUN)) == all_bits([record(1), record(2), record(3, score=8.0)])


def test_a_checkpoint_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("no such tensor")

    with Store(tmp_path).open_run(CONFIG, PROVENANCE) as writer:
        writer.save_checkpoint(lambda path: path.write_bytes(b"first"))
        with pytest.raises(RuntimeError, match="no such tensor"):
            writer.save_checkpoint(fail)
        assert (tmp_path / RUN / "checkpoint.pt").read_bytes() == b"first"
        writer.save_checkpoint(lambda path: path.write_bytes(b"second"))
        assert (tmp_path / RUN / "checkpoint.pt").read_bytes() == b"second"
        assert set(contents(tmp_path / RUN)) == {"config.json", "records.jsonl", "checkpoint.pt", "lock"}


def test_a_half_written_line_is_dropped_said_and_cut_off(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(1))
    path = tmp_path / RUN / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + encode_record(record(2))[:-5])
    with pytest.warns(
        StoreWarning, match=r"records\.jsonl: the last line was half-written .* 1 rows before it are kept"
    ):
        assert all_bits(store.read_rows(RUN)) == all_bits([record(1)])
    assert path.read_bytes() != whole, "a reader must not write"
    with pytest.warns(StoreWarning, match="half-written"):
        writer = store.open_run(CONFIG, PROVENANCE)
    with writer:
        assert all_bits(writer.rows) == all_bits([record(1)])
        assert path.read_bytes() == whole
        writer.append(record(2))
        writer.seal("done")
    assert all_bits(store.read_rows(RUN)) == all_bits([record(1), record(2)])


def test_a_half_written_line_of_a_running_run_is_no_cause_for_alarm(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(1))
        with (tmp_path / RUN / "records.jsonl").open("ab") as file:
            file.write(b'{"updates":')
        assert all_bits(store.read_rows(RUN)) == all_bits([record(1)])


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3)),
        st.tuples(st.just("keep"), st.integers(0, 12)),
        st.tuples(st.just("reopen"), st.just(0)),
        st.tuples(st.just("tear"), st.integers(1, 40)),
    ),
    max_size=15,
)


@given(_steps)
@pytest.mark.filterwarnings("ignore::rl_scaling.store.StoreWarning")
def test_any_history_leaves_the_rows_that_a_plain_list_would(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, patch("os.fsync"):
        store = Store(folder)
        model: list[Record] = []
        aside: list[Record] = []
        writer = store.open_run(CONFIG, PROVENANCE)
        for serial, (step, number) in enumerate(steps):
            if step == "append":
                model.append(record((model[-1].updates if model else 0) + number, wall_seconds=float(serial)))
                writer.append(model[-1])
            elif step == "keep":
                aside += [row for row in model if row.updates > number]
                model = [row for row in model if row.updates <= number]
                writer.keep_rows(number)
                assert all_bits(writer.rows) == all_bits(model)
            else:
                writer.close()
                if step == "tear":
                    with (Path(folder) / RUN / "records.jsonl").open("ab") as file:
                        file.write(encode_record(record(99))[:number])
                writer = store.open_run(CONFIG, PROVENANCE)
                assert all_bits(writer.rows) == all_bits(model)
            assert all_bits(store.read_rows(RUN)) == all_bits(model)
        writer.seal("done")
        assert all_bits(store.read_rows(RUN)) == all_bits(model)
        dropped = Path(folder) / RUN / "records.dropped.jsonl"
        assert (dropped.read_bytes() if dropped.exists() else b"") == b"".join(map(encode_record, aside))


def test_the_plan_is_kept_and_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    plan = {"game": "Pong", "num_envs": [4, 8], "frames": 2e6}
    store.save_plan(plan)
    assert Store(tmp_path / "new").load_plan() == plan
    store.save_plan({"game": "Breakout"})
    assert store.load_plan() == {"game": "Breakout"}
    assert set(contents(tmp_path / "new")) == {"sweep.json"}


# --- taken up again -----------------------------------------------------------------------------------------------


def stopped(store: Store, *, checkpoint: bool = True, status: SealedStatus = "stopped") -> Path:
    with store.open_run(CONFIG, PROVENANCE) as writer:
        for updates in (1, 2, 3):
            writer.append(record(updates))
        if checkpoint:
            writer.save_checkpoint(lambda path: path.write_text("state"))
        writer.seal(status, "enough")
        return writer.directory


def test_a_stopped_run_keeps_its_checkpoint_and_is_reopened_from_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = [encode_record(row) for row in (record(1), record(2), record(3))]
    directory = stopped(store)
    with pytest.raises(RunTakenError, match="already done"):
        store.open_run(CONFIG, PROVENANCE)
    with store.open_run(CONFIG, PROVENANCE, reopen=True) as writer:
        assert [encode_record(row) for row in writer.rows] == before
        assert writer.checkpoint is not None
        assert writer.checkpoint.read_text() == "state"
        assert store.status(CONFIG.run_id) == "running"
        writer.append(record(4))
        writer.seal("done")
    assert [row.updates for row in store.read_rows(CONFIG.run_id)] == [1, 2, 3, 4]
    assert store.status(CONFIG.run_id) == "done"
    assert not (directory / "checkpoint.pt").exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_reopened_without_a_checkpoint_it_begins_anew_and_the_old_run_is_moved_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stopped(store, checkpoint=False, status="done")
    with store.open_run(CONFIG, PROVENANCE, reopen=True) as writer:
        assert writer.rows == ()
    assert [row.updates for row in store.read_rows(f"{CONFIG.run_id}.replaced-1")] == [1, 2, 3]


def test_reopening_what_is_not_sealed_resumes_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(1))
    with store.open_run(CONFIG, PROVENANCE, reopen=True) as writer:
        assert [row.updates for row in writer.rows] == [1]


def test_a_kill_while_a_run_is_unsealed_leaves_all_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    directory = stopped(store)
    sealed = (directory / "records.parquet").read_bytes()
    unseal(directory)
    (directory / "records.parquet").write_bytes(sealed)  # as if it had not been removed yet
    assert store.status(CONFIG.run_id) == "stopped"
    with store.open_run(CONFIG, PROVENANCE, reopen=True) as writer:
        assert [row.updates for row in writer.rows] == [1, 2, 3]


def test_a_run_is_begun_anew_with_its_row_of_no_updates(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(0))
        writer.append(record(1))
    with store.open_run(CONFIG, PROVENANCE) as writer:
        writer.keep_rows(-1)
        assert writer.rows == ()
        writer.append(record(0))
        assert len((writer.directory / "records.dropped.jsonl").read_text().splitlines()) == 2


def test_a_run_that_never_began_is_discarded_and_one_with_rows_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.open_run(CONFIG, PROVENANCE).discard()
    assert not store.root.exists()
    writer = store.open_run(CONFIG, PROVENANCE)
    writer.append(record(1))
    writer.discard()
    assert [row.updates for row in store.read_rows(CONFIG.run_id)] == [1]
