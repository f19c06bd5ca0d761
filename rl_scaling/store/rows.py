"""A run's rows: as lines of JSON while it goes, as columns when it is done.

JSON lines are strict JSON, one record each: NaN is null, the infinities are "inf" and "-inf". Both forms give back
every value exactly, NaN and the sign of zero included.
"""

from __future__ import annotations

import dataclasses
import functools
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

from rl_scaling.records import IN_A_TABLE, LossRecord, Record, TrainingRecord, fields_of, record_type_of
from rl_scaling.store.disk import StoreError, StoreWarning, storage_errors

_INT64 = range(-(2**63), 2**63)


@functools.cache
def integers(record_type: type[Record]) -> frozenset[str]:
    """The fields that hold counts."""
    return frozenset(name for name, kind in typing.get_type_hints(record_type).items() if kind is int)


@functools.cache
def _defaults(record_type: type[Record]) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(record_type) if f.default is not dataclasses.MISSING}


@functools.cache
def row_schema(record_type: type[Record]) -> pa.Schema:
    """The columns of a sealed run of these records."""
    counts = integers(record_type)
    return pa.schema([(n, pa.int64() if n in counts else pa.float64()) for n in fields_of(record_type)])


def encode_record(record: Record) -> bytes:
    """A record as one line of strict JSON, newline included.

    Raises:
        StoreError: a count beyond 64 bits, which the sealed file could not hold.
    """
    counts = integers(type(record))
    row = {name: _to_json(name, getattr(record, name), name in counts) for name in fields_of(type(record))}
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _to_json(name: str, value: Any, is_count: bool) -> int | float | str | None:
    if is_count:
        count = operator.index(value)
        if count not in _INT64:
            raise StoreError(f"{name} is {count}: counts of more than 64 bits cannot be stored")
        return count
    number = float(value)
    if number != number:
        return None
    return number if abs(number) != float("inf") else str(number)


def decode_record(line: bytes) -> Record:
    """The inverse of `encode_record`; fields that this version does not know are ignored.

    Raises:
        ValueError: not a record.
    """
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    record_type = record_type_of(row)
    names, counts = fields_of(record_type), integers(record_type)
    if missing := [name for name in names if name not in row and name not in _defaults(record_type)]:
        raise ValueError(f"no field {missing[0]!r}")
    fields: dict[str, Any] = {name: _from_json(name, row[name], name in counts) for name in names if name in row}
    return record_type(**fields)


def _from_json(name: str, value: Any, is_count: bool) -> int | float:
    if is_count:
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

    records: list[Record]
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
                "repair or delete that line, or move the run's folder away"
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


def to_table(records: Sequence[Record]) -> pa.Table:
    """Records of one type as an Arrow table; its columns and types are those of `row_schema`."""
    schema = row_schema(type(records[0]) if records else TrainingRecord)
    columns = [pa.array([getattr(r, f.name) for r in records], f.type, from_pandas=False) for f in schema]
    return pa.table(columns, schema=schema)


def to_records(table: pa.Table) -> list[Record]:
    """The inverse of `to_table`."""
    record_type = record_type_of(table.column_names)
    return [record_type(**row) for row in table.to_pylist()]


def known_columns(table: pa.Table, path: Path) -> pa.Table:
    """The columns of `row_schema`, with defaults where an older version did not write one yet."""
    record_type = record_type_of(table.column_names)
    schema, defaults = row_schema(record_type), _defaults(record_type)
    if table.schema.equals(schema, check_metadata=False):
        return table.replace_schema_metadata(None)
    columns = []
    for field in schema:
        if field.name in table.column_names:
            column = table[field.name]
            columns.append(column if column.type == field.type else column.cast(field.type))
        elif field.name in defaults:
            columns.append(pa.repeat(pa.scalar(defaults[field.name], field.type, from_pandas=False), table.num_rows))
        else:
            raise StoreError(f"{path} has no column {field.name!r}: move it away; its run can then be started again")
    return pa.table(columns, schema=schema)


def concat_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of runs of any type, one after the other, in the columns of `rl_scaling.records.COLUMNS`.

    What a type does not have is null; a count that it does not have is 0.
    """
    named = [_with_common_names(table) for table in (*map(_empty, (TrainingRecord, LossRecord)), *tables)]
    whole = pa.concat_tables(named, promote_options="default")
    for place, field in enumerate(whole.schema):
        if pa.types.is_integer(field.type) and whole[place].null_count:
            whole = whole.set_column(place, field, whole[place].fill_null(0))
    return whole


def _empty(record_type: type[Record]) -> pa.Table:
    return row_schema(record_type).empty_table()


def _with_common_names(table: pa.Table) -> pa.Table:
    return table.rename_columns([IN_A_TABLE.get(name, name) for name in table.column_names])
