"""What the how-to pages say to add, read from the pages, and a copy of the package to add it to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "docs" / "how-to"
# "**The file**, `agents/fading.py`:" with a block of Python below it; "**The line**, in `registry.py`" with a diff.
_NEW_FILE = re.compile(r"^\*\*The (?:file|test)\*\*, `([^`]+)`.*?^```py(?:thon)?\n(.*?)^```$", re.M | re.S)
_NEW_LINE = re.compile(r"^\*\*The (?:line|entry)\*\*, in `([^`]+)`.*?^```diff\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Additions:
    """What a page adds: whole files, and lines below a line that is there; each by the path of its file."""

    files: dict[str, str]
    lines: dict[str, str]

    @property
    def touched(self) -> list[str]:
        return [*self.files, *self.lines]

    def apply(self, checkout: Path) -> None:
        """Do what the page says."""
        for name, text in self.files.items():
            path = checkout / name
            assert not path.exists(), f"{name} is there already: the page overwrites it"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name, diff in self.lines.items():
            above = [line[1:] for line in diff.splitlines() if line.startswith(" ")]
            added = [line[1:] for line in diff.splitlines() if line.startswith("+")]
            text = (checkout / name).read_text()
            assert text.count(above[0] + "\n") == 1, f"{name} has no line, or several, {above[0]!r}"
            (checkout / name).write_text(text.replace(above[0] + "\n", "\n".join([above[0], *added, ""])))


def additions_of(page: str) -> Additions:
    """The files and lines of a page."""
    text = (PAGES / f"{page}.md").read_text()
    return Additions(dict(_NEW_FILE.findall(text)), dict(_NEW_LINE.findall(text)))


def copy_of_the_package(folder: Path) -> Path:
    """The package and the folders that are linked into it."""
    for name in ("rl_scaling", "agents", "envs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def python(checkout: Path, *words: object) -> str:
    """What `python WORDS` prints in a checkout; it must end well."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def first_program_of(page: str) -> str:
    """The first block of Python of a page."""
    found = re.search(r"^```python\n(.*?)^```$", (PAGES / f"{page}.md").read_text(), re.M | re.S)
    assert found is not None
    return found[1]
