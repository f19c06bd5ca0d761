"""Commands as a user types them, and a tiny sweep that several verbs read."""

from __future__ import annotations

import pytest

from rl_scaling import cli

SWEEP = [
    *("sweep", "atari", "--game", "pong", "--network", "small", "--num-envs", "2", "4", "--learning-rates", "1e-3"),
    *("--frames", "400", "--goals", "-21", "-20", "--workers", "2"),
]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """The exit code, and what was printed on stdout and stderr."""
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err
