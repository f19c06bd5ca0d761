"""How many CPUs this process may really use, which in a container is fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def available_cpus(cgroups: Path = _CGROUPS) -> int:
    """CPUs this process may use: the least of the machine's, its affinity mask and its control group's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(cpus, math.ceil(_quota(cgroups))))


def _quota(cgroups: Path) -> float:
    """CPUs' worth of time the control group grants, a large number where nothing is said."""
    for read in (_quota_v2, _quota_v1):
        try:
            return read(cgroups)
        except (OSError, ValueError):
            continue
    return 1e6


def _quota_v2(cgroups: Path) -> float:
    granted, period = (cgroups / "cpu.max").read_text().split()
    return float(granted) / float(period)  # "max" is no number: nothing is said


def _quota_v1(cgroups: Path) -> float:
    granted = float((cgroups / "cpu" / "cpu.cfs_quota_us").read_text())
    if granted <= 0:
        raise ValueError("no quota")
    return granted / float((cgroups / "cpu" / "cpu.cfs_period_us").read_text())
