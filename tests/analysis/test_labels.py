"""Labels are for display: no code takes a task, a setting or a budget apart to find out what a run is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("rl_scaling/analysis", "rl_scaling/report", "rl_scaling/cli", "scripts")
FILES = sorted(path for place in PLACES for path in (ROOT / place).rglob("*.py"))
_LABEL = re.compile(r"\b(task|setting|budget)\b")
_TAKES_APART = {
    *("split", "rsplit", "partition", "rpartition", "startswith", "endswith", "removeprefix", "removesuffix"),
    *("contains", "extract", "match", "fullmatch", "search", "findall", "sub"),
}


def taken_apart(source: str) -> Iterator[str]:
    """Every expression that looks into a label: "sgd" in task, task.split(), re.search(..., row["setting"])."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _TAKES_APART:
            looked_at = [node.func.value, *(node.args if ast.unparse(node.func.value) == "re" else [])]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            looked_at = [node.comparators[0]]
        else:
            continue
        if any(_LABEL.search(ast.unparse(part)) for part in looked_at):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_label_is_taken_apart(path: Path) -> None:
    assert list(taken_apart(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        'words = last["task"].str.split(" schedule=").str[0]',
        'epochs = best[best["budget"].str.endswith(" epochs")]',
        'setting.removeprefix("adaptive ")',
        "0.5 if any(name in task.lower() for name in names) else 1.0",
        'fronts["task"].str.contains("sgd$")',
        "game = run.task.split()[0]",
        're.search("sgd", task)',
    ],
)
def test_what_it_is_there_for_is_found(line: str) -> None:
    assert list(taken_apart(line))
