"""Sizes that keep the source easy to find one's way in, and names that say what is inside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("rl_scaling", "agents", "envs", "scripts", "tests")
MOST_LINES_PER_FILE = 450
MOST_LINES_PER_FUNCTION = 60
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


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
