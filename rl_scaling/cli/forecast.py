"""What a sweep will take, said beforehand."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from rl_scaling.cli.options import console, duration, say
from rl_scaling.store import Store
from rl_scaling.sweeps.plan import SweepPlan

MEASURED_SECONDS = 3.0


def forecast_as_json(plans: Mapping[Path, SweepPlan], *, workers: int, device: str) -> dict[str, Any]:
    """What is left of sweeps, as plain data: each by itself, all together, and the throughput it rests on.

    Raises:
        ConfigError: no such device.
    """
    import psutil

    from rl_scaling.sweeps.forecast import forecast, measure_speed, wall_seconds
    from rl_scaling.sweeps.trial import choose_device

    choose_device(device)
    say(f"measuring {workers} trials side by side")
    speed = measure_speed(plans, workers=workers, device=device, seconds=MEASURED_SECONDS)
    each = [forecast(plan, Store(folder), speed, workers) for folder, plan in plans.items()]
    first = next(iter(plans)).absolute()
    existing = next(folder for folder in (first, *first.parents) if folder.exists())
    return {
        "sweeps": [dataclasses.asdict(one) for one in each],
        "trials": sum(one.trials for one in each),
        "frames": sum(one.frames for one in each),
        "hours": wall_seconds(each, workers) / 3600,
        "hours_extended": wall_seconds(each, workers, extended=True) / 3600,
        "memory_bytes": max((one.memory_bytes for one in each), default=0.0),
        "memory_free_bytes": psutil.virtual_memory().available,
        "disk_bytes": sum(one.kept_bytes for one in each) + max((one.open_bytes for one in each), default=0.0),
        "disk_free_bytes": shutil.disk_usage(existing).free,
        "workers": workers,
        "measured": {
            "game": speed.game,
            "frames_per_rollout": speed.rollout.batch.tolist(),
            "frames_per_second": (workers * speed.rollout.batch / speed.rollout.seconds).tolist(),
            "start_seconds_per_environment": speed.start_seconds,
        },
    }


def show_forecast(found: Mapping[str, Any]) -> None:
    """The same for people, on stderr."""
    table = Table("sweep", "trials", "frames", "alone", "memory", "disk", box=None)
    for one in found["sweeps"]:
        hours = duration(max(one["longest_seconds"], one["seconds"] / found["workers"]))
        table.add_row(
            one["store"],
            f"{one['trials']:,}",
            f"{one['frames']:,}",
            hours,
            _bytes(one["memory_bytes"]),
            _bytes(one["kept_bytes"] + one["open_bytes"]),
        )
    console.print(table)
    measured = found["measured"]
    speeds = ", ".join(
        f"{speed:,.0f} frames/s at {frames:,.0f} frames a rollout"
        for speed, frames in zip(measured["frames_per_second"], measured["frames_per_rollout"], strict=True)
    )
    hours, extended = (duration(3600 * found[name]) for name in ("hours", "hours_extended"))
    say(
        f"{found['trials']:,} trials, {found['frames']:,} frames: about {hours} with {found['workers']} side by side,"
        f" up to {extended} if every grid is extended"
    )
    say(f"measured on {measured['game']} just now: {speeds}, all trials together; others by a straight line")
    say(
        f"memory {_bytes(found['memory_bytes'])} of {_bytes(found['memory_free_bytes'])} free,"
        f" disk {_bytes(found['disk_bytes'])} of {_bytes(found['disk_free_bytes'])} free"
    )
    if found["memory_bytes"] > found["memory_free_bytes"]:
        say("it would be refused, for that is more memory than is free: give fewer environments or --workers")


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
