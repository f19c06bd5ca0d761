"""Races that hardly ever happen by themselves, each brought about at its worst moment."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from rl_scaling.store import Store, StoreError, disk, files
from rl_scaling.store.disk import RunLock, RunLockedError, is_locked
from rl_scaling.store.rows import RowsRead, read_rows_file
from tests.store.builders import PROVENANCE, all_bits, atari, record

CONFIG = atari()
RUN = CONFIG.run_id


def test_a_lock_that_was_given_up_and_taken_anew_while_one_waited_is_not_held_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    first = RunLock(path)
    others: list[RunLock] = []
    flock = fcntl.flock

    def slow_flock(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(disk.fcntl, "flock", flock)
        # Between opening the file and locking it, its holder removes it and somebody else makes and holds a new one.
        first.release()
        others.append(RunLock(path))
        flock(descriptor, operation)

    monkeypatch.setattr(disk.fcntl, "flock", slow_flock)
    with pytest.raises(RunLockedError, match=f"process {os.getpid()} on"):
        RunLock(path)
    others[0].release()
    assert not is_locked(path)


def test_a_reader_that_probes_the_lock_does_not_keep_a_writer_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    leave = threading.Timer(0.01, os.close, (descriptor,))
    leave.start()
    RunLock(path).release()
    leave.join()


def test_a_run_sealed_while_it_is_read_is_read_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    writer = store.open_run(CONFIG, PROVENANCE)
    writer.append(record(1))

    def read_too_late(path: Path) -> RowsRead:
        monkeypatch.setattr(files, "read_rows_file", read_rows_file)
        writer.seal("done")
        return read_rows_file(path)

    monkeypatch.setattr(files, "read_rows_file", read_too_late)
    assert all_bits(store.read_rows(RUN)) == all_bits([record(1)])


def test_a_run_sealed_while_another_asks_for_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    writer = store.open_run(CONFIG, PROVENANCE)

    def lock_too_late(path: Path) -> RunLock:
        writer.seal("done")
        return RunLock(path)

    monkeypatch.setattr("rl_scaling.store.RunLock", lock_too_late)
    with pytest.raises(StoreError, match="is already done"):
        store.open_run(CONFIG, PROVENANCE)
    assert {path.name for path in (tmp_path / RUN).iterdir()} == {"config.json", "records.parquet"}


def test_rows_are_on_the_disk_before_the_checkpoint_that_follows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        events.append(f"{source.name} becomes {target.name}")
        replace(source, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not say which file a descriptor is")
    with Store(tmp_path).open_run(CONFIG, PROVENANCE) as writer:
        writer.append(record(1))
        monkeypatch.setattr(os, "fsync", noting_fsync)
        monkeypatch.setattr(os, "replace", noting_replace)
        writer.save_checkpoint(lambda path: path.write_bytes(b"weights"))
        partial = f".checkpoint.pt.partial-{os.getpid()}"
        assert events == ["sync records.jsonl", f"sync {partial}", f"{partial} becomes checkpoint.pt", f"sync {RUN}"]
