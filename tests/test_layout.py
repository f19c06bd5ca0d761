"""Sizes that keep the source easy to find one's way in, names that say what is inside, and tests beside it."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("rl_scaling", "agents", "envs", "scripts", "tests")
MOST_LINES_PER_FILE = 450
MOST_LINES_PER_FUNCTION = 60
FEWEST_LINES_PER_FILE = 50
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# By their import names: `rl_scaling/agents` and `rl_scaling/envs` are links, which `rglob` does not follow.
MODULES = {
    path.relative_to(root).as_posix(): path
    for root, folder in ((ROOT / "rl_scaling", "."), (ROOT, "agents"), (ROOT, "envs"))
    for path in (root / folder).rglob("*.py")
}

# Why a module is shorter than 50 lines; faces of packages (`__init__.py`, `__main__.py`) may be.
SMALL = {
    "domains/device.py": "of every domain that learns with torch, and the only one of them that imports it",
    "nqm.py": "a face: the public name of the model",
    "report/charts/algorithms.py": "one file per chart",
}
# Where modules are tested that have no test file of their own name, and why.
TESTED_IN = {
    "agents/agent.py": "agents/test_a2c.py: abstract, tested by what derives from it; and agents/test_ppo.py",
    "agents/config.py": "agents/test_ppo.py: refusals beside what they protect",
    "envs/config.py": "envs/test_make.py: refusals beside what they protect",
    "analysis/__init__.py": "test_imports.py: a face that loads what is asked for",
    "envs/__init__.py": "test_imports.py: a face that loads what is asked for",
    "noise/__init__.py": "test_imports.py: a face that loads what is asked for",
    "cli/export.py": "sweeps/test_trackers.py: trackers, by the command that hands runs to them",
    "cli/advise_table.py": "cli/test_advise.py: its only caller",
    "config/*": "domains/rl/test_config.py: what a config checks and hashes, on those of each domain",
    "records.py": "store/test_rows.py: records are what rows are made of",
    "report/charts/*": "report/test_charts.py: all are drawn from the same runs",
    "report/section.py": "report/test_page.py: a part of it",
    "report/theme.py": "report/test_browser.py: what a browser makes of it",
    "store/*": "store/test_damage.py: by what goes wrong; and test_processes, test_races, test_full_disk",
    "sweeps/executors/*": "sweeps/test_every_domain.py: one suite that every domain passes with each of them",
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES_PER_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MOST_LINES_PER_FUNCTION, f"{node.name} has {lines} lines"


def test_no_module_is_a_drawer() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "util", "helpers", "misc", "common"}]


def lines_of(name: str) -> int:
    return len(MODULES[name].read_text().splitlines())


def test_a_module_of_a_few_lines_has_a_reason() -> None:
    found = {name for name in MODULES if lines_of(name) < FEWEST_LINES_PER_FILE and not name.endswith("__.py")}
    assert found == SMALL.keys()


def has_own_test(name: str) -> bool:
    """`a/b.py` is tested by `a/test_b.py`, a package's face `a/__init__.py` by `test_a.py` or `a/test_a.py`."""
    path = Path(name)
    own = [path.parent / f"test_{path.name}"]
    if path.name == "__init__.py":
        own = [folder / f"test_{path.parent.name}.py" for folder in (path.parent, path.parent.parent)]
    return any((ROOT / "tests" / test).exists() for test in own)


def test_tests_mirror_the_modules() -> None:
    without = [name for name in MODULES if lines_of(name) >= FEWEST_LINES_PER_FILE and not has_own_test(name)]
    assert not [name for name in without if not any(fnmatch(name, pattern) for pattern in TESTED_IN)]
    assert not [pattern for pattern in TESTED_IN if not any(fnmatch(name, pattern) for name in without)], "not needed"


@pytest.mark.parametrize("pattern", TESTED_IN)
def test_where_a_module_is_tested_instead_there_are_tests(pattern: str) -> None:
    assert (ROOT / "tests" / TESTED_IN[pattern].split(":")[0]).exists()
