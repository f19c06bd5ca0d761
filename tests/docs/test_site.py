"""The documentation builds as a site, with every link and anchor checked, and names only what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OUR_PATH = re.compile(r"(?<![\w/.])(?:agents|docs|envs|results|rl_scaling|scripts|tests)/[\w./-]*\w")
OUR_NAME = re.compile(r"(?<![\w/])rl_scaling(?:\.[A-Za-z_]\w*)+")
OUR_IMPORT = re.compile(r"from (rl_scaling[\w.]*) import ([\w, ]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_names_of_ours_exist(page: Path) -> None:
    """A how-to may name what its reader adds: there, what holds it must exist. Its examples are run elsewhere."""
    adds = page.parent.name == "how-to"
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL) if adds else page.read_text()
    paths = [ROOT / path for path in OUR_PATH.findall(text)]
    assert not [path for path in paths if not (path.parent if adds else path).exists()]
    imported = [f"{module}.{name.strip()}" for module, names in OUR_IMPORT.findall(text) for name in names.split(",")]
    for name in {*OUR_NAME.findall(text), *imported}:
        resolve_name(name.rpartition(".")[0] if adds else name)  # raises where there is nothing of that name


def test_site_builds_and_has_the_command_reference(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference" / "commands" / "index.html").read_text()
    for name in ("sweep atari", "nqm steps", "fit", "report"):
        assert f"rl-scaling {name}" in reference
    assert "--learning-rates" in reference
    for leftover in ("default: None", "{None", "(default: )", "pyright:"):
        assert leftover not in reference
    loaded = re.findall(
        r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', (tmp_path / "index.html").read_text()
    )
    assert not loaded, "the site loads something from elsewhere"
