"""What several verbs read."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl_scaling import cli
from tests.cli.commands import SWEEP


@pytest.fixture(scope="session")
def pong_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sweep of a real game, run by the real command."""
    folder = tmp_path_factory.mktemp("cli") / "pong"
    assert cli.main([*SWEEP, "--out", str(folder)]) == 0
    return folder
