from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_environments_need_no_torch() -> None:
    done = python("import sys, rl_scaling.envs; assert 'torch' not in sys.modules, 'torch was imported'")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_the_bare_name_is_refused() -> None:
    done = python("import envs")
    assert done.stderr.splitlines()[-1].startswith("ImportError: import rl_scaling.envs, not envs")
