"""Rows survive both of their forms exactly."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from rl_scaling.records import Record, TrainingRecord, fields_of
from rl_scaling.store import StoreError
from rl_scaling.store.files import new_document, read_run, write_sealed
from rl_scaling.store.rows import (
    decode_record,
    encode_record,
    known_columns,
    read_rows_file,
    row_schema,
    to_records,
    to_table,
)
from tests.store.builders import FIELDS, INTEGERS, all_bits, any_record, any_run, atari, bits, record


@given(any_record)
def test_json_lines_give_back_every_bit(row: Record) -> None:
    assert bits(decode_record(encode_record(row))) == bits(row)


@given(any_record)
def test_json_lines_are_strict_json_on_one_line(row: Record) -> None:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    line = encode_record(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert list(json.loads(line, parse_constant=refuse)) == list(fields_of(type(row)))


@given(any_run)
def test_sealed_files_give_back_every_bit(rows: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        document = new_document(atari(), {}) | {"status": "done", "note": ""}
        write_sealed(Path(folder) / "records.parquet", document, rows)
        read = read_run(Path(folder))
    assert read is not None
    assert all_bits(to_records(read[1])) == all_bits(rows)


def test_numbers_of_numpy_are_stored_as_plain_ones() -> None:
    row = record(3, frames=np.int64(60), score=np.float32(0.1), entropy=np.float64("nan"))
    read = decode_record(encode_record(row))
    assert isinstance(read, TrainingRecord)
    assert read.frames == 60
    assert type(read.frames) is int
    assert read.score == float(np.float32(0.1))
    assert np.isnan(read.entropy)


@pytest.mark.parametrize("count", [2**63, -(2**63) - 1])
def test_counts_that_the_sealed_file_could_not_hold_are_refused_at_once(count: int) -> None:
    with pytest.raises(StoreError, match=r"frames is .* 64 bits"):
        encode_record(record(1, frames=count))


def test_a_fraction_where_a_count_belongs_is_refused() -> None:
    with pytest.raises(TypeError):
        encode_record(record(1, frames=1.5))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"\0\0\0",
        encode_record(record(1)).replace(b'"updates":1,', b""),
        encode_record(record(1)).replace(b'"updates":1,', b'"updates":1.5,'),
        encode_record(record(1)).replace(b'"updates":1,', b'"updates":true,'),
        encode_record(record(1)).replace(b'"updates":1,', b'"updates":9223372036854775808,'),
        encode_record(record(1)).replace(b'"entropy":1.0', b'"entropy":"high"'),
        encode_record(record(1)).replace(b'"entropy":1.0', b'"entropy":[1]'),
    ],
)
def test_what_is_not_a_record_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_record(line)


def test_lines_of_older_and_newer_versions_are_read() -> None:
    row = json.loads(encode_record(record(1)))
    del row["noise_measurements"], row["noise_scale"]
    read = decode_record(json.dumps(row | {"something_new": [1, 2]}).encode())
    assert read.noise_measurements == 0
    assert np.isnan(read.noise_scale)
    assert bits(read) == bits(record(1))


def test_columns_of_older_and_newer_versions_are_read() -> None:
    whole = to_table([record(1), record(2)])
    older = whole.drop_columns(["noise_measurements", "noise_scale_high"])
    newer = older.append_column("something_new", pa.array(["a", "b"]))
    table = known_columns(newer, Path("x"))
    assert table.schema == row_schema(TrainingRecord)
    assert all_bits(to_records(table)) == all_bits([record(1), record(2)])
    with pytest.raises(StoreError, match="no column 'updates'"):
        known_columns(whole.drop_columns(["updates"]), Path("x"))


def test_a_file_cut_anywhere_gives_the_whole_lines_before_the_cut(tmp_path: Path) -> None:
    rows = [record(1), record(20), record(300)]
    lines = [encode_record(row) for row in rows]
    content = b"".join(lines)
    path = tmp_path / "records.jsonl"
    edges = {len(b"".join(lines[:n])) + around for n in range(4) for around in range(-3, 4)}
    for cut in sorted({*range(0, len(content), 7), *edges} & set(range(len(content) + 1))):
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        read = read_rows_file(path)
        assert all_bits(read.records) == all_bits(rows[:whole])
        assert read.whole_bytes == sum(map(len, lines[:whole]))
        assert read.partial_bytes == cut - read.whole_bytes


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_rows_file(tmp_path / "records.jsonl").records == []


def test_the_schema_holds_counts_as_integers_and_the_rest_as_floats() -> None:
    schema = row_schema(TrainingRecord)
    assert tuple(schema.names) == FIELDS
    assert {f.name for f in schema if f.type == pa.int64()} == set(INTEGERS)
    assert {f.name for f in schema if f.type == pa.float64()} == set(FIELDS) - set(INTEGERS)
