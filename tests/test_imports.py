"""What may import what: the contracts in pyproject.toml, and what is really loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent


def run_python(code: str, *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_import_contracts_hold() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    done = run_python(code)
    assert done.returncode == 0, done.stdout + done.stderr


def test_contracts_see_the_linked_folders() -> None:
    modules = grimp.build_graph("rl_scaling", cache_dir=None).modules
    for folder in ("agents", "envs"):
        expected = {f"rl_scaling.{folder}.{path.stem}" for path in (ROOT / folder).glob("*.py")}
        assert expected - {f"rl_scaling.{folder}.__init__"} <= modules
        assert f"rl_scaling.{folder}" in modules


@pytest.mark.parametrize(
    ("imported", "left_out"),
    [
        ("config, records, statistics, store, analysis, report", ["torch", "ale_py", "gymnasium", "stable_baselines3"]),
        ("noise", ["torch", "ale_py", "gymnasium", "stable_baselines3", "pandas"]),
        ("analysis", ["altair", "vl_convert"]),
        ("nqm", ["torch", "ale_py", "gymnasium", "altair", "vl_convert"]),
        ("envs", ["torch", "stable_baselines3"]),
        ("domains.rl.training, sweeps", ["stable_baselines3", "altair"]),
        ("sweeps.forecast", ["torch", "ale_py", "gymnasium"]),
        ("validation.settings", ["torch", "scipy", "pandas"]),
        ("cli", ["torch", "ale_py", "gymnasium", "altair", "vl_convert", "scipy", "pandas", "stable_baselines3"]),
    ],
)
def test_import_leaves_out_what_it_does_not_need(imported: str, left_out: list[str]) -> None:
    names = ", ".join(f"rl_scaling.{name.strip()}" for name in imported.split(","))
    done = run_python(f"import sys\nimport {names}\nprint(*({set(left_out)!r} & sys.modules.keys()))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        ("--help", ["torch", "ale_py", "gymnasium", "altair", "vl_convert", "scipy", "pandas"]),
        ("fit results/breakout-a2c --json", ["torch", "ale_py", "gymnasium", "altair", "vl_convert"]),
        ("nqm steps", ["torch", "ale_py", "gymnasium", "altair", "vl_convert"]),
        ("status results/breakout-a2c", ["torch", "ale_py", "gymnasium", "altair", "vl_convert", "scipy"]),
        ("report results/breakout-a2c --out {folder}/page.html", ["torch", "ale_py", "gymnasium"]),
    ],
)
def test_a_command_loads_no_more_than_it_needs(words: str, left_out: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, rl_scaling.cli as cli\n"
        "try:\n"
        f"    cli.main({words.format(folder=tmp_path).split()!r})\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"print('loaded:', *({set(left_out)!r} & sys.modules.keys()))"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("folder", ["agents", "envs"])
def test_bare_folder_name_is_refused_in_one_line(folder: str) -> None:
    """Other distributions install packages of these names; a checkout must not be mistaken for one of them."""
    done = run_python(f"import {folder}")
    assert done.returncode == 1
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: ")
    assert f"rl_scaling.{folder}" in last_line
