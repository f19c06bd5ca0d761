"""The benchmark against Stable-Baselines3 runs as a user starts it: its environments live in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_prints_every_figure() -> None:
    options = ["--seconds", "0.1", "--rounds", "1", "--num-envs", "2", "--network", "small", "--threads", "1", "--json"]
    command = [sys.executable, "-m", "rl_scaling.cli", "bench", "atari", *options]
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
