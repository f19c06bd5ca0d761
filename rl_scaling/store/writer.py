"""Writing one run: rows as they come, checkpoints, and the seal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rl_scaling.records import RECORD_TYPES, SEALED, Record, SealedStatus
from rl_scaling.store.disk import RunLock, StoreError, remove_partial_files, replace_file, storage_errors, sync
from rl_scaling.store.files import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    DROPPED_FILE,
    ROWS_FILE,
    SEALED_FILE,
    kept_checkpoint,
    write_sealed,
)
from rl_scaling.store.rows import RowsRead, encode_record, read_rows_file, warn_of_partial_line


class RunWriter:
    """The one writer of a run; a context manager, made by `Store.open_run`.

    It holds the run's lock until it is sealed or closed. Every row is handed to the system before `append` returns, so
    that a killed process loses none; a checkpoint and a seal are on the disk before their calls return.

    Attributes:
        directory: the run's folder.
        rows: what an earlier, interrupted attempt left, as far as `keep_rows` has kept it.
    """

    def __init__(self, directory: Path, document: dict[str, Any], lock: RunLock) -> None:
        self.directory = directory
        self._document = document
        self._record_type = RECORD_TYPES[document.get("identity", {}).get("unit", "frames")]
        self._lock = lock
        self._path = directory / ROWS_FILE
        remove_partial_files(directory)
        earlier = read_rows_file(self._path)
        self.rows: tuple[Record, ...] = tuple(earlier.records)
        self._last_updates = _last_updates(earlier)
        warn_of_partial_line(self._path, earlier)
        with storage_errors(self._path):
            if earlier.partial_bytes:
                os.truncate(self._path, earlier.whole_bytes)
            self._descriptor: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

    @property
    def checkpoint(self) -> Path | None:
        """The last checkpoint that was saved in full, if there is one."""
        path = self.directory / CHECKPOINT_FILE
        return path if path.exists() else None

    def append(self, record: Record) -> None:
        """Add one row.

        Raises:
            StoreError: the disk is full (the rows before stay whole, and the same call may be made again); the record
                counts fewer updates than the one before it, or is not of the type that counts the run's unit; the
                writer is closed.
        """
        descriptor = self._open_descriptor()
        if type(record) is not self._record_type:
            raise StoreError(f"{self._path}: this run takes rows of type {self._record_type.__name__} alone")
        if record.updates < self._last_updates:
            raise StoreError(
                f"{self._path}: a row at {record.updates} updates cannot follow one at {self._last_updates}: "
                "call keep_rows with the checkpoint's updates first"
            )
        line = encode_record(record)
        with storage_errors(self._path):
            end = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, line)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, end)
                raise
        self._last_updates = record.updates

    def keep_rows(self, up_to_updates: int) -> None:
        """Take back the rows after `up_to_updates`, to continue from a checkpoint made there (-1: to begin anew).

        They are moved to `records.dropped.jsonl`, not deleted.

        Raises:
            StoreError: the disk is full, or the writer is closed; no row is lost.
        """
        descriptor = self._open_descriptor()
        read = read_rows_file(self._path)
        kept = next((i for i, row in enumerate(read.records) if row.updates > up_to_updates), len(read.records))
        whole = read.ends[kept - 1] if kept else 0
        if kept < len(read.records):
            with storage_errors(self._path):
                # Aside first: a kill between the two steps leaves the rows twice, never nowhere.
                _append_to(self.directory / DROPPED_FILE, os.pread(descriptor, read.whole_bytes - whole, whole))
                os.ftruncate(descriptor, whole)
                os.fsync(descriptor)
        self.rows = tuple(read.records[:kept])
        self._last_updates = self.rows[-1].updates if self.rows else 0

    def save_checkpoint(self, write: Callable[[Path], object]) -> None:
        """Replace the checkpoint by what `write(path)` writes; the old one stays until the new one is whole.

        Raises:
            StoreError: the disk is full, or the writer is closed; the old checkpoint stays.
        """
        descriptor = self._open_descriptor()
        with storage_errors(self._path):
            # Never a checkpoint on the disk without the rows that lead up to it.
            os.fsync(descriptor)
        replace_file(self.directory / CHECKPOINT_FILE, write)

    def keep_checkpoint(self, place: str, write: Callable[[Path], object]) -> None:
        """Write a checkpoint that stays with the run, whatever becomes of it, under the name of a place.

        Args:
            place: a goal, or "end"; what was kept there before is replaced.
            write: as in `save_checkpoint`.

        Raises:
            StoreError: the disk is full, or the writer is closed.
        """
        self._open_descriptor()
        replace_file(kept_checkpoint(self.directory, place), write)

    def seal(self, status: SealedStatus, note: str = "") -> None:
        """Turn the rows into `records.parquet`, whose presence says that the run is over, and close the writer.

        A stopped run keeps its checkpoint, so that it can resume when more is asked of it.

        Args:
            status: "done", "diverged" (a result, not an error) or "stopped" (nothing more was asked of it).
            note: one line for people, kept with the run.

        Raises:
            StoreError: the disk is full, or the writer is closed; the run stays as it was and may be sealed again.
        """
        self._open_descriptor()
        if status not in SEALED:
            raise StoreError(f"a run cannot be sealed as {status!r}: give one of {', '.join(SEALED)}")
        document = self._document | {"status": status, "note": note}
        write_sealed(self.directory / SEALED_FILE, document, read_rows_file(self._path).records)
        for name in (ROWS_FILE, *([] if status == "stopped" else [CHECKPOINT_FILE])):
            with contextlib.suppress(OSError):
                (self.directory / name).unlink(missing_ok=True)
        self.close()

    def discard(self) -> None:
        """Close a run that never began, and leave nothing of it behind; one with rows or a checkpoint stays."""
        empty = self._descriptor is not None and os.fstat(self._descriptor).st_size == 0
        if empty and self.checkpoint is None:
            for name in (CONFIG_FILE, ROWS_FILE):
                (self.directory / name).unlink(missing_ok=True)
        self.close()
        with contextlib.suppress(OSError):  # it holds more, or is the store itself
            self.directory.rmdir()
            self.directory.parent.rmdir()

    def close(self) -> None:
        """Give up the lock and leave the run as it is: interrupted, unless sealed. Does nothing the second time."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._lock.release()

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise StoreError(f"the writer of {self.directory} is closed: open the run again")
        return self._descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _last_updates(read: RowsRead) -> int:
    return read.records[-1].updates if read.records else 0


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _append_to(path: Path, content: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        _write_all(file.fileno(), content)
        os.fsync(file.fileno())
    sync(path.parent)
