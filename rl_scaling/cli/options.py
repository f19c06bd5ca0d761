"""Options that are the fields of configs, option types that commands share, and the one way to print."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import docstring_parser
import tyro
from rich.console import Console
from rich.table import Table

from rl_scaling.config import ConfigError

console = Console(stderr=True, highlight=False)


# --- options are configs -------------------------------------------------------------------------------------------


def options_of(
    first: type[Any], *others: type[Any], leave_out: Collection[str] = (), only: str = "", **renamed: str
) -> type[Any]:
    """The fields of configs as options that may be left out: a dataclass whose fields are None unless given.

    A field that several configs have is one option. Its help is the field's docstring, with the config's default.

    Args:
        configs: frozen dataclasses with docstrings in Google's style.
        leave_out: fields that are set otherwise.
        only: what the options are for, said before their help: "Atari".
        renamed: options of other names than their fields: adaptive="exchange_rate".

    >>> from rl_scaling.agents.config import A2CConfig, PPOConfig
    >>> given(options_of(A2CConfig, PPOConfig)(epochs=2))
    {'epochs': 2}
    """
    configs = (first, *others)
    option_of = {field: option for option, field in renamed.items()}
    found: dict[str, tuple[Any, list[str]]] = {}
    for config in configs:
        types, helps = typing.get_type_hints(config), _field_helps(config)
        for f in dataclasses.fields(config):
            if f.name in leave_out:
                continue
            default = "" if f.default is dataclasses.MISSING else f" (default {f.default})"
            owner = only or (config.kind.upper() if len(configs) > 1 else "")
            text = f"{helps.get(f.name, f.name)}{default}"
            found.setdefault(option_of.get(f.name, f.name), (types[f.name], []))[1].append(f"{owner}: {text}")
    fields = [(name, _option_type(kind, texts, len(configs))) for name, (kind, texts) in found.items()]
    made = dataclasses.make_dataclass(
        f"{configs[0].__name__}Options", [(n, t, field(default=None)) for n, t in fields], frozen=True
    )
    made.renamed = renamed
    return made


def _option_type(kind: Any, texts: Sequence[str], configs: int) -> Any:
    """An optional field of this type; one help for all configs, or one for each where they differ."""
    plain = list(dict.fromkeys(text.split(": ", 1)[1] for text in texts))
    text = plain[0] if len(plain) == 1 and len(texts) == configs else "; ".join(texts)
    text = text.removeprefix(": ")
    return Annotated[kind | None, tyro.conf.arg(help=text[:1].upper() + text[1:], help_behavior_hint="")]


def _field_helps(config: type[Any]) -> dict[str, str]:
    """What the docstrings of a config and its bases say of its fields."""
    helps: dict[str, str] = {}
    for base in reversed(config.__mro__):
        for param in docstring_parser.parse(base.__doc__ or "").params:
            for name in param.arg_name.split(", "):
                helps[name] = " ".join((param.description or "").split())
    return helps


def given(options: Any) -> dict[str, Any]:
    """The fields of the config that options were given for, by name."""
    renamed = type(options).renamed
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    return {renamed.get(name, name): value for name, value in values.items() if value is not None}


def changed(config: Any, options: Mapping[str, Any], message: str) -> Any:
    """A config with the given fields replaced.

    Raises:
        ConfigError: it has no such field; `message` says what to do about `{option}`. Or what the config refuses.
    """
    known = {f.name for f in dataclasses.fields(config)}
    for name in options:
        if name not in known:
            raise ConfigError(message.format(option=f"--{name.replace('_', '-')}"))
    return dataclasses.replace(config, **options)


# --- types and printing --------------------------------------------------------------------------------------------


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
