"""Runs on disk: appended to while they go, sealed when they are done, read back as one table.

    DIR/sweep.json              the plan, if a sweep made the runs
    DIR/<run id>/config.json    the question and where it was asked (see `rl_scaling.store.files` for each file)
                 records.jsonl      the rows so far
                 records.parquet    the sealed run; its presence means that it is over
                 checkpoint.pt      to go on from

Nothing is overwritten or deleted that a run has measured. Killed at any moment, a run keeps every row but a
half-written last line, which is dropped with a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rl_scaling.config import SCHEMA_VERSION, StorableConfig
from rl_scaling.records import Record, SealedStatus, Status
from rl_scaling.store.disk import (
    RunLock,
    RunLockedError,
    RunTakenError,
    StoreError,
    StoreWarning,
    read_json,
    storage_errors,
    write_json,
)
from rl_scaling.store.files import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    LOCK_FILE,
    SEALED_FILE,
    RunInfo,
    check_schema,
    new_document,
    read_info,
    read_run,
    unseal,
)
from rl_scaling.store.rows import to_records
from rl_scaling.store.table import list_runs, load_runs
from rl_scaling.store.writer import RunWriter

__all__ = [
    "PLAN_FILE",
    "RunInfo",
    "RunTakenError",
    "RunWriter",
    "SealedStatus",
    "Store",
    "StoreError",
    "StoreWarning",
    "list_runs",
    "load_runs",
]

PLAN_FILE = "sweep.json"


class Store:
    """A folder of runs; it is made when the first run is opened or the plan is saved.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def open_run(
        self, config: StorableConfig, provenance: dict[str, Any], *, replace: bool = False, reopen: bool = False
    ) -> RunWriter:
        """Start a run, or take up an interrupted one: the writer's `rows` and `checkpoint` are what it left.

        Args:
            config: the question; its `run_id` names the run's folder.
            provenance: versions, commit, machine and the like, as plain data; kept from the first attempt, and under
                "resumed" from each later one where it differs.
            replace: move aside whatever there is of this run (to `<run id>.replaced-1` and so on) and start afresh.
            reopen: take up a sealed run of which more is asked, from its checkpoint; without one, as `replace`.

        Raises:
            RunTakenError: the run is sealed, or another process is writing it.
            StoreError: the folder cannot be written to, or holds something that this version cannot read.
        """
        directory = self.root / config.run_id
        if not (replace or reopen):
            _refuse_sealed(directory)  # before a lock: the folder may be one to read alone
        lock = self._lock(directory)
        try:
            if reopen and (directory / SEALED_FILE).exists():
                if (directory / CHECKPOINT_FILE).exists():
                    unseal(directory)
                else:
                    replace = True
            if replace and _has_content(directory):
                _move_aside(directory, lock)
                return self.open_run(config, provenance)
            _refuse_sealed(directory)
            document = _start_or_resume(directory, new_document(config, provenance))
            return RunWriter(directory, document, lock)
        except BaseException:
            lock.release()
            raise

    def status(self, run_id: str) -> Status | None:
        """How the run stands; None if it was never started.

        "running" means that a living process writes it, "interrupted" that none does and it is not sealed; sealed
        runs are "done", "diverged" or "stopped".

        Raises:
            StoreError: the run's files are damaged or were written by a newer version.
        """
        info = self.info(run_id)
        return info.status if info else None

    def info(self, run_id: str) -> RunInfo | None:
        """What is known of the run beside its rows; None if it was never started.

        Raises:
            StoreError: the run's files are damaged or were written by a newer version.
        """
        return read_info(self.root / run_id)

    def read_rows(self, run_id: str) -> list[Record]:
        """The rows so far of a run, sealed or not; none if it was never started.

        Raises:
            StoreError: the run's files are damaged or were written by a newer version.
        """
        run = read_run(self.root / run_id)
        return to_records(run[1]) if run else []

    def save_plan(self, plan: dict[str, Any]) -> None:
        """Keep the sweep's plan (plain data) in `sweep.json`, in place of an earlier one.

        Raises:
            StoreError: the folder cannot be written to.
        """
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.root / PLAN_FILE, {"schema": SCHEMA_VERSION, "plan": plan})

    def load_plan(self) -> dict[str, Any] | None:
        """The plan that was saved last; None if none was.

        Raises:
            StoreError: the file is damaged or was written by a newer version.
        """
        path = self.root / PLAN_FILE
        document = read_json(path)
        if document is None:
            return None
        check_schema(document, path)
        if not isinstance(document.get("plan"), dict):
            raise StoreError(f"{path} holds no plan: repair it or move it away")
        return document["plan"]

    def _lock(self, directory: Path) -> RunLock:
        with storage_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            try:
                return RunLock(directory / LOCK_FILE)
            except RunLockedError as error:
                message = f"{directory} is being written by {error}: wait for it, or stop it first"
                raise RunTakenError(message) from error


def _has_content(directory: Path) -> bool:
    return any(entry.name != LOCK_FILE for entry in directory.iterdir())


def _refuse_sealed(directory: Path) -> None:
    if (directory / SEALED_FILE).exists():
        info = read_info(directory)
        status = f" (status {info.status})" if info else ""
        raise RunTakenError(f"{directory} is already done{status}: nothing to run; --replace runs it again")


def _start_or_resume(directory: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Write `config.json` for a new run; for an old one return what it says, with this attempt added if it differs."""
    path = directory / CONFIG_FILE
    info = read_info(directory)
    if info is None:
        write_json(path, document)
        return document
    if info.run_id != document["run_id"]:
        raise StoreError(f"{path} belongs to run {info.run_id}: move its folder away")
    old = read_json(path) or document
    if document["provenance"] != [info.provenance, *info.resumed][-1]:
        old["resumed"] = [*info.resumed, document["provenance"]]
        write_json(path, old)
    return old


def _move_aside(directory: Path, lock: RunLock) -> None:
    number = 1
    while (aside := directory.with_name(f"{directory.name}.replaced-{number}")).exists():
        number += 1
    with storage_errors(directory):
        directory.rename(aside)
    lock.path = aside / LOCK_FILE
    lock.release()
