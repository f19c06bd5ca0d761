"""The check for a GPU: every part is tried on a CPU; what fails or takes too long is said and stops nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scripts.loading import SCRIPTS, load_script

SCRIPT = str(SCRIPTS / "gpu_check.sh")
ALL = ("tests", "bench-256", "envs-256", "envs-1024", "envs-4096", "bench-1024", "sweep")
# Stands in for python: the benchmark fails, the tests never end, the rest prints a figure.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
  *"bench atari"*) echo "no benchmark here" >&2; exit 3 ;;
  *"-m pytest"*) echo started; echo $$ > "$PIDS"; exec sleep 300 ;;
  -c*print*) echo 0.1 ;;
  *status*) echo "12 done" ;;
  *) echo '{"figure": 7}' ;;
esac
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return os.environ | {"PYTHON": str(python), "PIDS": str(tmp_path / "pids")}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_every_part_is_accounted_for(tmp_path: Path, stand_in: dict[str, str]) -> None:
    words = [
        "bash",
        SCRIPT,
        "--device",
        "cpu",
        "--tiny",
        "--out",
        str(tmp_path / "out"),
        *(p for p in ALL if p != "tests"),
    ]
    done = subprocess.run(words, env=stand_in, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, "a part failed"
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "## bench-256: failed, exit 3" in summary
    assert "no benchmark here" in summary
    for part in ("envs-256", "envs-1024", "envs-4096", "sweep"):
        assert f"## {part}: done in" in summary
    assert '{"figure": 7}' in summary
    assert "12 done" in summary
    assert "## tests" not in summary
    assert json.loads((tmp_path / "out" / "envs-256.json").read_text()) == {"figure": 7}


def test_a_signal_ends_what_runs_and_leaves_a_summary(tmp_path: Path, stand_in: dict[str, str]) -> None:
    words = ["bash", SCRIPT, "--out", str(tmp_path / "out"), "tests", "bench-1024"]
    with subprocess.Popen(words, env=stand_in, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 20
        while not Path(stand_in["PIDS"]).exists() or not Path(stand_in["PIDS"]).read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 1
    assert gone(int(Path(stand_in["PIDS"]).read_text()))
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "## tests: failed, exit 143" in summary
    assert "## bench-1024: not run" in summary


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--fast"], "--fast is no part"), (["--seconds", "1"], "give 30 or more"), (["--out"], "--out needs a value")],
)
def test_bad_input_is_one_line(words: list[str], said: str) -> None:
    done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize("start_seconds", ["60", "0"])
def test_memory_beside_its_estimate(
    start_seconds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--device", "cpu", "--network", "small", "--num-envs", "2", "--threads", "1", "--seconds", "0.05"]
    words += ["--start-seconds", start_seconds, "--lock", str(tmp_path / "lock")]
    monkeypatch.setattr(sys, "argv", ["gpu_memory.py", *words])
    assert load_script("gpu_memory").main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["host_bytes_estimated"] > 3e8
    assert found["host_bytes"] > 1e8
    assert ("frames_per_second" in found) == (start_seconds == "60")
    assert found["started"] == (2 if start_seconds == "60" else 0)


def test_memory_refuses_what_cannot_alternate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_memory.py", "--device", "cpu", "--num-envs", "3"])
    assert load_script("gpu_memory").main() == 2
    assert "even" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_check_on_a_cpu(tmp_path: Path) -> None:
    """Real parts, of a few environments each; there is no GPU for the tests, which are skipped and exit with 0 or 5."""
    words = ["bash", SCRIPT, "--device", "cpu", "--tiny", "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run(words, env=environment, capture_output=True, text=True, timeout=540, check=False)
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "failed" not in summary.replace("## tests: failed, exit 5", ""), summary
    for part in ("bench-256", "envs-256", "envs-1024"):  # a busy machine may take too long for the rest
        assert f"## {part}: done in" in summary, summary
    bench = json.loads((tmp_path / "out" / "bench-256.json").read_text())
    assert bench["frames_per_second"]["sb3"] > 0
