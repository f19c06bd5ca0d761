"""The benchmark against Stable-Baselines3 runs as a user starts it: its environments live in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rl_scaling.validation.throughput import Throughput

PARTS = ("emulator", "network", "sb3", "ours", "alternating")


def test_ratios_are_formed_within_a_round() -> None:
    """The machine is twice as fast in the second round, and in the third Stable-Baselines3 alone had a bad moment."""
    rates = ([400.0, 300, 50, 100, 150], [800.0, 600, 100, 200, 300], [400.0, 300, 10, 100, 150])
    found = Throughput([dict(zip(PARTS, each, strict=True)) for each in rates], 0.01)
    assert found.frames_per_second == dict(zip(PARTS, [400, 300, 50, 100, 150], strict=True)) | {"side_by_side": None}
    assert found.ratios == {
        "ratio_to_sb3": 2,
        "alternating_ratio_to_sb3": 3,
        "side_by_side_ratio_to_sb3": None,
        "fraction_of_limit": pytest.approx(100 / 400 + 100 / 300),
        "fraction_of_emulator": 150 / 400,
        "alternating_ratio": 1.5,
    }


@pytest.mark.slow
def test_prints_every_figure() -> None:
    options = ["--seconds", "0.1", "--rounds", "1", "--num-envs", "2", "--network", "small", "--threads", "1", "--json"]
    command = [sys.executable, "-m", "rl_scaling", "bench", "atari", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() >= {
        "ratio_to_sb3",
        "fraction_of_limit",
        "noise_scale_overhead",
        "frames_per_second",
        "alternating_ratio",
        "alternating_ratio_to_sb3",
        "fraction_of_emulator",
    }
    figures = found["frames_per_second"]
    assert figures.keys() == {"ours", "sb3", "emulator", "network", "alternating", "side_by_side"}
    assert all(figure > 0 for figure in figures.values())
    # One round: its ratios are those of its figures.
    assert found["fraction_of_emulator"] == pytest.approx(figures["alternating"] / figures["emulator"])
    assert found["alternating_ratio"] == pytest.approx(figures["alternating"] / figures["ours"])
