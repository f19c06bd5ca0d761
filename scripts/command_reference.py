"""The reference of the command line as one Markdown page, made from the commands' own help.

    python scripts/command_reference.py            # prints it

The documentation's build (`mkdocs.yml`) uses it as a hook and puts the page at `reference/commands.md`, so that it is
never older than the commands.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import TYPE_CHECKING, Any

os.environ["COLUMNS"] = "100"

from rl_scaling.cli import main

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

PAGE = "reference/commands.md"
_LEAD = """# Commands

Every command prints results on stdout, progress on stderr, and ends with 0 (done), 1 (failed or interrupted) or 2 (bad
arguments). `--json`, where there is one, prints what a program can read and nothing else on stdout. Counts may be
written as `2e6`.

`rl-scaling --tyro-print-completion bash` (or `zsh`) prints a completion script for the shell.
"""


def help_of(command: list[str]) -> str:
    """What a command prints when it is asked for help, as plain text."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def subcommands(text: str) -> list[str]:
    """The subcommands that a help text offers: `usage: rl-scaling train [-h] {a2c,ppo}`."""
    usage = re.search(r"usage:[^\n]*?\{([\w,\-\n ]+)\}", text)
    return usage[1].replace("\n", "").replace(" ", "").split(",") if usage and "subcommands" in text else []


def sections(command: list[str]) -> list[str]:
    """A command and all below it, each with its help; groups of commands only name their members."""
    text = help_of(command)
    below = subcommands(text)
    name = " ".join(["rl-scaling", *command])
    found = [] if below else [f"## `{name}`\n\n```text\n{text.strip()}\n```\n"]
    return found + [section for child in below for section in sections([*command, child])]


def reference() -> str:
    """The page."""
    return "\n".join([_LEAD, *sections([])])


def on_files(files: Files, *, config: Any) -> Files:
    """Hook of the documentation's build: adds the page to its files."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=reference()))
    return files


if __name__ == "__main__":
    print(reference())
