"""Files that are there whole or not at all, the system's errors in one plain line, and one writer for each run.

A writer holds a lock on the run's folder that the system drops when its holder dies, however it dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import time
import weakref
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


# A reader's probe holds the lock for some microseconds; a writer that meets one tries again.
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.02


class RunLockedError(Exception):
    """Another process, or another writer in this one, holds the lock; the message names it as far as it is known."""


class RunLock:
    """An exclusive `flock` on a file; it lasts until `release` or the end of the process.

    A forked child does not keep its parent's locks: a worker that outlives a killed parent must not hold up the next
    attempt.

    Raises:
        RunLockedError: somebody else holds it.
        OSError: the file cannot be made, or its file system has no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = _acquire(path)
        _held.add(self)

    def release(self) -> None:
        """Give the lock up and remove its file; does nothing the second time."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close this process's handle and leave the file alone."""
        _held.discard(self)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock at `path`; never waits, and leaves nothing behind."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path) -> int:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still_at(descriptor, path):
                _sign(descriptor)
                return descriptor
        except BlockingIOError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise RunLockedError(_holder(path))


def _is_still_at(descriptor: int, path: Path) -> bool:
    """Whether the locked file is the one that `path` names: its last holder may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Leave a note of who holds the lock; it is a courtesy, so that a full disk does not matter."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip() or "another process"
    except OSError:
        return "another process"
