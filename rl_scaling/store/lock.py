"""One writer per run: a lock on the run's folder that the system drops when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
import weakref
from pathlib import Path

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
