"""Option types that several subcommands share, and the one way to print."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from rl_scaling.config import ConfigError

console = Console(stderr=True, highlight=False)


def parse_count(text: str) -> int:
    """A whole number written as 2000000, 2_000_000 or 2e6.

    Raises:
        ConfigError: it is not a whole number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value != int(value):
        raise ConfigError(f"{text!r} is not a whole number: write for instance 2000000 or 2e6")
    return int(value)


Count = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="COUNT",
        instance_from_str=lambda words: parse_count(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]

Folders = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]


def at_least(lowest: float, **options: float) -> None:
    """Refuse options that are too small.

    Raises:
        ConfigError: one of them is below `lowest`, or not a number.
    """
    for name, value in options.items():
        if not value >= lowest:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}: give {lowest:g} or more")


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with null where a number is missing or infinite, for JSON has neither."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def print_line(text: object) -> None:
    """A line of results on stdout."""
    sys.stdout.write(f"{text}\n")


def print_json(data: Any) -> None:
    """The one thing that goes to stdout under --json; strict JSON, so no NaN."""
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def say(message: str) -> None:
    """A line for people, on stderr; text in brackets is not markup."""
    console.print(message, markup=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """A table on stdout, as wide as it needs to be where stdout is no terminal."""
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table)


def duration(seconds: float) -> str:
    """Minutes, or hours where they are many.

    >>> duration(61), duration(3 * 3600)
    ('2 min', '3.0 h')
    """
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:,.1f} h"
