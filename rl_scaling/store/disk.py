"""Files that are there whole or not at all, and the system's errors in one plain line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_NOTHING_BYTES = 1 << 16


class StoreError(RuntimeError):
    """The store cannot do what was asked; the message is one line that says what to do."""


class RunTakenError(StoreError):
    """Another process writes the run, or has sealed it in the meantime."""


class StoreWarning(UserWarning):
    """Something in the store was left out or repaired; the message names the file."""


@contextlib.contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Turn the system's errors about `path` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(_advice(error, path)) from error


def _advice(error: OSError, path: Path) -> str:
    if error.errno in _FULL_DISK:
        return (
            f"no space left for {path}: free some and give the same command again; everything recorded so far is kept"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to use {path}: give a folder that you may write to"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"a file is in the way of {path}: give another folder, or move the file"
    return f"cannot use {path}: {error.strerror or error}"


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, make it durable, and rename it into place.

    Whatever goes wrong, `path` is left as it was.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with storage_errors(path):
        try:
            _call_writer(write, partial)
            sync(partial)
            os.replace(partial, path)
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def _call_writer(write: Callable[[Path], object], partial: Path) -> None:
    try:
        write(partial)
    except OSError:
        raise
    except Exception as error:
        # Writers in C++ (torch.save is one) report a full disk as a plain RuntimeError.
        if shutil.disk_usage(partial.parent).free < _NEARLY_NOTHING_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def remove_partial_files(directory: Path) -> None:
    """Clear away what a killed `replace_file` left; call it only while holding the run's lock."""
    for leftover in directory.glob(".*.partial-*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file in one piece (see `replace_file`)."""
    text = json.dumps(document, indent=2, default=str) + "\n"
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file that holds one object; None where there is no such file.

    Raises:
        StoreError: it cannot be read or is something else.
    """
    with storage_errors(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        document = json.loads(content)
    except ValueError as error:
        raise StoreError(f"{path} is not readable JSON ({error}): repair it or move it away") from error
    if not isinstance(document, dict):
        raise StoreError(f"{path} holds no JSON object: repair it or move it away")
    return document
