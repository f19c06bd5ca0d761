"""Many runs as one table.

pandas is imported where a table is made, so that commands which only write a store start quickly.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rl_scaling.records import SEALED, Identity
from rl_scaling.store.disk import StoreError, StoreWarning
from rl_scaling.store.files import CONFIG_FILE, SEALED_FILE, RunInfo, read_info, read_run
from rl_scaling.store.rows import concat_tables

if TYPE_CHECKING:
    import pandas as pd

_OWN = ("run_id", "store", "status", "note", "task")
IDENTITY_COLUMNS = (*_OWN, *(f.name for f in dataclasses.fields(Identity)))
REPLACED = re.compile(r"\.replaced-\d+$")

_IDENTITY_TYPES = {
    **dict.fromkeys(("batch_size", "seed"), "int64"),
    **dict.fromkeys(("learning_rate", "budget_amount", "exchange_rate"), "float64"),
}
_Read = TypeVar("_Read")


def load_runs(*paths: Path | str, allow_empty: bool = True) -> pd.DataFrame:
    """Every row of every run below the paths, one row per record.

    Runs still going and runs that were interrupted are there with the rows they have; `status` tells them apart. Runs
    without a row, such as those that diverged before their first record, are only in `list_runs`. What cannot be read
    is left out with a `StoreWarning`. So is a run's second copy: a sealed one comes before others, then the one with
    more rows, then the first.

    Args:
        paths: stores, single runs' folders, or folders that hold such at any depth.
        allow_empty: whether no row at all gives an empty frame or an error.

    Returns:
        The columns run_id, store (the folder of the run's folder), status, note, task (a label) and the fields of
        `rl_scaling.records.Identity`; the config's fields under dotted names
        ("environment.num_envs", "agent.rollout_steps", "config.frames" for the run's own), which are missing values
        for runs that lack the field; and those of `rl_scaling.records.COLUMNS`, where frames and examples are both
        called examples. The runs come one after the other, sorted by folder; their rows in order.

    Raises:
        StoreError: a path does not exist, or `allow_empty` is false and there is no row.
    """
    import pandas as pd

    runs = _collect(paths, read_run, lambda run: run[0], lambda run: run[1].num_rows)
    infos = [info for info, _ in runs]
    lengths = np.array([table.num_rows for _, table in runs], dtype=np.int64)
    if not allow_empty and not lengths.sum():
        raise StoreError(f"no recorded rows in {', '.join(map(str, paths))}: run a sweep there first")
    rows = concat_tables([table for _, table in runs]).to_pandas()
    identity = _identity_frame(infos)
    repeated = identity.take(np.repeat(np.arange(len(infos)), lengths)).reset_index(drop=True)
    return pd.concat([repeated, rows], axis="columns")


def list_runs(*paths: Path | str) -> list[RunInfo]:
    """What is known of every run below the paths, beside its rows; sorted by folder.

    What cannot be read is left out with a `StoreWarning`. So is a run's second copy: a sealed one comes before others,
    then the first.

    Raises:
        StoreError: a path does not exist.
    """
    return _collect(paths, read_info, lambda info: info, lambda _: 0)


def _collect(
    paths: Sequence[Path | str],
    read: Callable[[Path], _Read | None],
    info_of: Callable[[_Read], RunInfo],
    rows_of: Callable[[_Read], int],
) -> list[_Read]:
    if not paths:
        raise StoreError("no folder to read runs from: give at least one")
    best: dict[str, _Read] = {}
    for run in _read_below(paths, read):
        info = info_of(run)
        rival = best.setdefault(info.run_id, run)
        if rival is run:
            continue

        def rank(candidate: _Read) -> tuple[bool, int]:
            return info_of(candidate).status in SEALED, rows_of(candidate)

        kept, left = (run, rival) if rank(run) > rank(rival) else (rival, run)
        best[info.run_id] = kept
        _warn(f"{info_of(left).directory} is left out: {info_of(kept).directory} holds the same run, {info.run_id}")
    return sorted(best.values(), key=lambda run: info_of(run).directory)


def _read_below(paths: Sequence[Path | str], read: Callable[[Path], _Read | None]) -> Iterator[_Read]:
    """Read every run's folder below the paths once, however many links and paths lead to it."""
    seen: set[tuple[int, int]] = set()
    for path in map(Path, paths):
        if not path.is_dir():
            raise StoreError(f"no such folder: {path}")
        pending = [path]
        while pending:
            folder = pending.pop()
            run = None
            try:
                place = folder.stat()
                if (place.st_dev, place.st_ino) in seen:
                    continue
                seen.add((place.st_dev, place.st_ino))
                names, subfolders = _look_into(folder)
                # Somebody else's file must not hide the runs below it.
                pending.extend(subfolders)
                run = read(folder) if names & {CONFIG_FILE, SEALED_FILE} else None
            except (StoreError, OSError) as error:
                _warn(f"left out: {error}")
            if run is not None:
                yield run


def _look_into(folder: Path) -> tuple[set[str], list[Path]]:
    """The names in a folder, and the subfolders to search: not hidden ones, not runs that were replaced."""
    with os.scandir(folder) as entries:
        found = list(entries)
    searched = [e.name for e in found if e.is_dir() and not e.name.startswith(".") and not REPLACED.search(e.name)]
    return {e.name for e in found}, [folder / name for name in searched]


def _warn(message: str) -> None:
    warnings.warn(message, StoreWarning, stacklevel=5)


# --- columns -----------------------------------------------------------------------------------------------------


def _identity_frame(infos: Sequence[RunInfo]) -> pd.DataFrame:
    """One row per run: the identity columns, then the config's."""
    import pandas as pd

    rows = [_identity_row(info) for info in infos]
    names = [*IDENTITY_COLUMNS, *dict.fromkeys(name for row in rows for name in row if name not in IDENTITY_COLUMNS)]
    columns = {name: _column(name, [row.get(name) for row in rows]) for name in names}
    return pd.DataFrame(columns, index=range(len(rows)))


def _identity_row(info: RunInfo) -> dict[str, Any]:
    parent = info.directory.parent if info.directory.name not in ("", "..") else info.directory.resolve().parent
    own = (info.run_id, str(parent), info.status, info.note, info.identity.task)
    return dict(zip(_OWN, own, strict=True)) | vars(info.identity) | dict(_flatten(info.config))


def _flatten(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix or 'config.'}{name}", json.dumps(value) if isinstance(value, list) else value


def _column(name: str, values: list[Any]) -> pd.Series:
    """Values as a column of their own type; where some are missing, of a type that can say so."""
    import pandas as pd

    if name in IDENTITY_COLUMNS:
        return pd.Series(values, dtype=_IDENTITY_TYPES.get(name, "str"))
    kinds = {type(value) for value in values if value is not None}
    if None in values and kinds <= {bool} and kinds:
        return pd.Series(values, dtype="boolean")
    if None in values and kinds <= {int} and kinds:
        return pd.Series(values, dtype="Int64")
    return pd.Series(values)
