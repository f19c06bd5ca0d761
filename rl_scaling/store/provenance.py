"""Where numbers come from: versions, commit and machine, kept beside every run."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rl_scaling.store import RunInfo

_CODE = ("rl_scaling", "agents", "envs")
_PACKAGES = ("rl-scaling", "torch", "ale-py", "gymnasium", "numpy")


def provenance(*, device: str, threads: int, **further: Any) -> dict[str, Any]:
    """Plain data that lets a reader say on what, with what and when a run was made; `further` is added as it is."""
    return {
        "started_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "threads": threads,
        **further,
    }


def code_of(origin: Mapping[str, Any]) -> str:
    """Version and commit of the code in a run's provenance, in words.

    >>> code_of({"commit": "abc", "versions": {"rl-scaling": "0.1.0"}})
    '0.1.0 (abc)'
    """
    version, commit = (origin.get("versions") or {}).get("rl-scaling"), origin.get("commit")
    return f"{version or 'unknown version'}" + (f" ({commit})" if commit else "")


def other_code(infos: Iterable[RunInfo]) -> str:
    """One line where runs were made, or gone on with, by other code than this; else nothing."""
    here = code_of({"commit": _commit(), "versions": {"rl-scaling": _version("rl-scaling")}})
    made = {code_of(origin) for info in infos for origin in (info.provenance, *info.resumed)} - {here}
    if not made:
        return ""
    return f"runs here were made by rl-scaling {', '.join(sorted(made))}; this is {here}: what they say may differ"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """The checkout's commit, with "+changes" when the code differs from it; None outside a checkout.

    A sweep whose store is tracked changes files too, but not the code.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "--no-optional-locks", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    """The processor's model name, which platform.processor() leaves empty on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
