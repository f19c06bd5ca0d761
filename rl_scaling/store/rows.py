"""A run's rows: as lines of JSON while it goes, as columns when it is done.

JSON lines are strict JSON, one record each: NaN is null, the infinities are "inf" and "-inf". Both forms give back
every value exactly, NaN and the sign of zero included.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import os
import typing
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rl_scaling.records import COLUMNS, TrainingRecord
from rl_scaling.store.disk import StoreError, StoreWarning, storage_errors

_INT64 = range(-(2**63), 2**63)
_IS_INTEGER = {name: kind is int for name, kind in typing.get_type_hints(TrainingRecord).items()}
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(TrainingRecord) if f.default is not dataclasses.MISSING}
ROW_SCHEMA = pa.schema([(name, pa.int64() if _IS_INTEGER[name] else pa.float64()) for name in COLUMNS])


def encode_record(record: TrainingRecord) -> bytes:
    """A record as one line of strict JSON, newline included.

    Raises:
        StoreError: a count beyond 64 bits, which the sealed file could not hold.
    """
    row = {name: _to_json(name, getattr(record, name)) for name in COLUMNS}
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _to_json(name: str, value: Any) -> int | float | str | None:
    if _IS_INTEGER[name]:
        count = operator.index(value)
        if count not in _INT64:
            raise StoreError(f"{name} is {count}: counts of more than 64 bits cannot be stored")
        return count
    number = float(value)
    if number != number:
        return None
    return number if abs(number) != float("inf") else str(number)


def decode_record(line: bytes) -> TrainingRecord:
    """The inverse of `encode_record`; fields that this version does not know are ignored.

    Raises:
        ValueError: not a record.
    """
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if missing := [name for name in COLUMNS if name not in row and name not in _DEFAULTS]:
        raise ValueError(f"no field {missing[0]!r}")
    fields: dict[str, Any] = {name: _from_json(name, row[name]) for name in COLUMNS if name in row}
    return TrainingRecord(**fields)


def _from_json(name: str, value: Any) -> int | float:
    if _IS_INTEGER[name]:
        if type(value) is int and value in _INT64:
            return value
    elif value is None:
        return float("nan")
    elif type(value) in (int, float) or value in ("inf", "-inf"):
        return float(value)
    raise ValueError(f"field {name!r} is {value!r}")


@dataclass(frozen=True)
class RowsRead:
    """The rows of a `records.jsonl`, the byte offset behind each, and the bytes of a half-written last line."""

    records: list[TrainingRecord]
    ends: list[int]
    partial_bytes: int

    @property
    def whole_bytes(self) -> int:
        return self.ends[-1] if self.ends else 0


def read_rows_file(path: Path) -> RowsRead:
    """Read a `records.jsonl`; a file that is not there has no rows.

    Raises:
        StoreError: a line that is whole and yet not a record.
    """
    with storage_errors(path):
        try:
            with path.open("rb") as file:
                # Its size now, and not its end: a running writer may be adding to it.
                content = file.read(os.fstat(file.fileno()).st_size)
        except FileNotFoundError:
            content = b""
    *lines, partial = content.split(b"\n")
    records, ends, end = [], [], 0
    for number, line in enumerate(lines, start=1):
        end += len(line) + 1
        try:
            records.append(decode_record(line))
        except ValueError as error:
            raise StoreError(
                f"{path} line {number} is not a record ({error}): "
                "mend or delete that line, or move the run's folder away"
            ) from error
        ends.append(end)
    return RowsRead(records, ends, len(partial))


def warn_of_partial_line(path: Path, rows: RowsRead) -> None:
    """Say that the last line of `path` was dropped, if it was."""
    if rows.partial_bytes:
        warnings.warn(
            f"{path}: the last line was half-written when its run was stopped; its {rows.partial_bytes} bytes are "
            f"dropped, the {len(rows.records)} rows before it are kept",
            StoreWarning,
            stacklevel=3,
        )


def to_table(records: Sequence[TrainingRecord]) -> pa.Table:
    """Records as an Arrow table with the columns and types of `ROW_SCHEMA`."""
    columns = [pa.array([getattr(r, f.name) for r in records], f.type, from_pandas=False) for f in ROW_SCHEMA]
    return pa.table(columns, schema=ROW_SCHEMA)


def to_records(table: pa.Table) -> list[TrainingRecord]:
    """The inverse of `to_table`."""
    return [TrainingRecord(**row) for row in table.to_pylist()]


def known_columns(table: pa.Table, path: Path) -> pa.Table:
    """The columns of `ROW_SCHEMA`, with defaults where an older version did not write one yet."""
    if table.schema.equals(ROW_SCHEMA, check_metadata=False):
        return table.replace_schema_metadata(None)
    columns = []
    for field in ROW_SCHEMA:
        if field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        elif field.name in _DEFAULTS:
            columns.append(pa.array([_DEFAULTS[field.name]] * table.num_rows, field.type, from_pandas=False))
        else:
            raise StoreError(f"{path} has no column {field.name!r}: move it away; its run can then be started again")
    return pa.table(columns, schema=ROW_SCHEMA)
