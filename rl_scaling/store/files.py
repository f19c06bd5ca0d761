"""The files in one run's folder: how each is written, read back and checked.

config.json            {"schema", "run_id", "identity", "config", "provenance", "resumed"}; "identity" is an
                       `Identity`, so that a reader needs no config classes
records.jsonl          rows so far, one a line (see `rl_scaling.store.rows`)
records.dropped.jsonl  rows that a resumed run took back because they came after its checkpoint
records.parquet        the sealed run: all rows, and under the schema's metadata key "rl_scaling" all of
                       config.json with "status" and "note"
checkpoint.pt          whatever the trainer put there
checkpoint-at-4.pt     one that stays when the run is sealed: of the first reach of the goal 4; "end": of the last row
lock                   held by the process that writes the run

What older versions wrote is brought into today's form here: the one place where an old label is taken apart.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rl_scaling.config import SCHEMA_VERSION, ConfigError, StorableConfig, parse, to_dict, variant_of
from rl_scaling.records import Identity, Record, Status
from rl_scaling.store.disk import StoreError, is_locked, read_json, replace_file, storage_errors
from rl_scaling.store.rows import (
    encode_record,
    known_columns,
    read_rows_file,
    to_records,
    to_table,
    warn_of_partial_line,
)

# What schema 1 left out: all its runs count frames, have goals of the score and tune the rate alone.
_SINCE_SCHEMA_2 = {"setting": "", "unit": "frames", "quantity": "score"}


def identity_of_document(document: dict[str, Any]) -> Identity:
    """The identity in a run's `config.json` or sealed file, of any schema up to today's.

    Raises:
        ConfigError: it is none.
    """
    plain = {name: value for name, value in document["identity"].items() if name != "task"}
    if document["schema"] < 3:
        plain = _columns_of(document["identity"], document["config"]) | _SINCE_SCHEMA_2 | plain
    identity = parse(Identity, plain, "run's identity")
    _ = identity.measure  # refuses what this version cannot count
    return identity


def _columns_of(old: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The columns that schema 3 has beyond schema 2, from the config; the label alone tells the variant."""
    domain, problem, algorithm = _names_in(config, old["task"])
    words = old["task"].removeprefix(problem).removeprefix(f" {algorithm}").split()
    columns: dict[str, Any] = {"domain": domain, "problem": problem, "algorithm": algorithm}
    if (config.get("schedule") or {}).get("name") == "halving":
        amount, unit = (config["budget"] or f"{config['updates']} updates").split()
        columns |= {"budget_amount": float(amount), "budget_unit": unit}
        words = words[: words.index(f"budget={amount}")]  # it came last
    if adaptive := config.get("adaptive"):
        columns["exchange_rate"] = adaptive["exchange_rate"]
    if algorithm.startswith("adam"):  # its customary coefficient was taken for a variant
        words = [word for word in words if word != "second_moment=0.999"]
    return columns | {"variant": variant_of(words)}


def label_of_plan(label: str) -> str:
    """A task's label in the `sweep.json` of an older version, as it is today."""
    return re.sub(r" (adam\S*) second_moment=0\.999", r" \1", label)


def _names_in(config: dict[str, Any], task: str) -> tuple[str, str, str]:
    """Domain, problem and algorithm."""
    if "environment" in config and "agent" in config:
        environment = config["environment"]
        return "rl", environment.get("game") or environment["env_id"], config["agent"]["kind"]
    match config.get("kind"):
        case "supervised":
            optimizer = config["optimizer"]
            plain = optimizer["name"] == "adam" and not optimizer["momentum"]
            label = optimizer["name"] + "-without-momentum" * plain + "+ema" * bool(optimizer["ema"])
            return "supervised", f"{config['dataset']}-{config['model']}", label
        case "nqm":
            return "nqm", "NQM", config["optimizer"]
        case kind:
            return str(kind or ""), task, ""


def identity_to_plain(identity: Identity) -> dict[str, Any]:
    """An identity as strict JSON takes it, its label beside it for people; what is NaN is left out."""
    plain = {name: value for name, value in vars(identity).items() if not _is_nan(value)}
    return plain | {"task": identity.task}


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


CONFIG_FILE = "config.json"
ROWS_FILE = "records.jsonl"
DROPPED_FILE = "records.dropped.jsonl"
SEALED_FILE = "records.parquet"
CHECKPOINT_FILE = "checkpoint.pt"
LOCK_FILE = "lock"
_KEPT = "checkpoint-at-"

_METADATA_KEY = b"rl_scaling"
_MALFORMED = (KeyError, TypeError, AttributeError, ValueError, ConfigError)


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """All that is known of a run beside its rows.

    Attributes:
        directory: the run's folder.
        identity: task, batch_size (in units per update), learning_rate, setting, seed, unit and quantity.
        config: the config as plain data (for reinforcement learning `rl_scaling.config.run_config_from_dict` rebuilds
            it).
        provenance: versions, machine and the like when the run was first started.
        resumed: the provenance of every later attempt that differed from the one before it.
    """

    directory: Path
    run_id: str
    status: Status
    note: str
    identity: Identity
    config: dict[str, Any]
    provenance: dict[str, Any]
    resumed: tuple[dict[str, Any], ...]


def kept_checkpoint(directory: Path, place: str) -> Path:
    """The checkpoint that stays with a run under this name; it need not be there."""
    return directory / f"{_KEPT}{place}.pt"


def kept_checkpoints(directory: Path) -> dict[str, Path]:
    """The checkpoints that stay with a run, by their places: goals as text, and "end"."""
    return {path.stem.removeprefix(_KEPT): path for path in sorted(directory.glob(f"{_KEPT}*.pt"))}


def new_document(config: StorableConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """What `config.json` says of a run that starts now."""
    return {
        "schema": SCHEMA_VERSION,
        "run_id": config.run_id,
        "identity": identity_to_plain(config.identity),
        "config": to_dict(config),
        # As it will be read back, so that a later attempt's can be compared with it.
        "provenance": json.loads(json.dumps(provenance, default=str)),
        "resumed": [],
    }


def write_sealed(path: Path, document: dict[str, Any], records: Sequence[Record]) -> None:
    """Write the sealed run: rows and, as metadata, what `config.json` says with status and note."""
    metadata = {_METADATA_KEY: json.dumps(document).encode()}
    sink = pa.BufferOutputStream()
    # A few hundred rows whose values mostly differ: dictionaries and statistics only make the file larger and slower.
    table = to_table(records).replace_schema_metadata(metadata)
    pq.write_table(table, sink, compression="snappy", use_dictionary=False, write_statistics=False)
    content = sink.getvalue()
    replace_file(path, lambda partial: partial.write_bytes(content))


def unseal(directory: Path) -> None:
    """Turn a sealed run back into rows that can be added to; killed at any moment, all its rows are in one place.

    Raises:
        StoreError: the disk is full, or the sealed file is damaged.
    """
    run = read_run(directory)
    assert run is not None
    lines = b"".join(map(encode_record, to_records(run[1])))
    replace_file(directory / ROWS_FILE, lambda partial: partial.write_bytes(lines))
    with storage_errors(directory):
        (directory / SEALED_FILE).unlink()


def read_info(directory: Path) -> RunInfo | None:
    """What is known of the run in `directory`; None where there is no run of ours.

    Raises:
        StoreError: there is one, but it is damaged or was written by a newer version.
    """
    if (directory / SEALED_FILE).exists():
        with _open_sealed(directory) as (info, _):
            return info
    return _read_unsealed_info(directory)


def read_run(directory: Path) -> tuple[RunInfo, pa.Table] | None:
    """The run in `directory` with its rows (`row_schema`); None where there is no run of ours.

    Raises:
        StoreError: there is one, but it is damaged or was written by a newer version.
    """
    sealed = directory / SEALED_FILE
    if not sealed.exists():
        info = _read_unsealed_info(directory)
        rows = read_rows_file(directory / ROWS_FILE) if info else None
        # The run may have been sealed while it was being read.
        if not sealed.exists():
            if info is None or rows is None:
                return None
            if info.status != "running":
                warn_of_partial_line(directory / ROWS_FILE, rows)
            return info, to_table(rows.records)
    with _open_sealed(directory) as (info, file):
        return info, known_columns(file.read(use_threads=False), sealed)


@contextlib.contextmanager
def _open_sealed(directory: Path) -> Generator[tuple[RunInfo, pq.ParquetFile]]:
    path = directory / SEALED_FILE
    damaged = f"{path} is damaged: move it away; its run can then be started again"
    foreign = f"{path} was not written by rl-scaling: move it out of the store"
    with storage_errors(path):
        content = path.read_bytes()
    if not content:
        raise StoreError(damaged)
    if content[:4] != b"PAR1":
        raise StoreError(foreign)
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            metadata = (file.schema_arrow.metadata or {}).get(_METADATA_KEY)
            if metadata is None:
                raise StoreError(foreign)
            yield _info_from(json.loads(metadata), directory, path), file
    except (pa.ArrowException, OSError, *_MALFORMED) as error:
        raise StoreError(damaged) from error


def _read_unsealed_info(directory: Path) -> RunInfo | None:
    path = directory / CONFIG_FILE
    document = read_json(path)
    # Many programs call a file config.json; one without these two keys is not ours, and none of our business.
    if document is None or not {"schema", "run_id"} <= document.keys():
        return None
    with storage_errors(directory):
        status: Status = "running" if is_locked(directory / LOCK_FILE) else "interrupted"
    try:
        return _info_from(document, directory, path, status)
    except _MALFORMED as error:
        raise StoreError(f"{path} is not a run's config ({error}): move its folder away") from error


def check_schema(document: dict[str, Any], path: Path) -> None:
    """Refuse what a newer version wrote.

    Raises:
        StoreError: the schema is newer than `SCHEMA_VERSION`, or no number at all.
    """
    schema = document.get("schema")
    if type(schema) is not int:
        raise StoreError(f"{path} does not say its schema: repair it or move it away")
    if schema > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by schema {schema}, this version reads up to {SCHEMA_VERSION}: upgrade rl-scaling"
        )


def _info_from(document: dict[str, Any], directory: Path, path: Path, status: Status | None = None) -> RunInfo:
    check_schema(document, path)
    return RunInfo(
        directory=directory,
        run_id=document["run_id"],
        status=status or document["status"],
        note=document.get("note", ""),
        identity=identity_of_document(document),
        config=document["config"],
        provenance=document["provenance"],
        resumed=tuple(document.get("resumed", ())),
    )
