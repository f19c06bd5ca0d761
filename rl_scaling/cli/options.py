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
from typing import TYPE_CHECKING, Annotated, Any

import docstring_parser
import tyro
from rich.console import Console
from rich.table import Table

from rl_scaling.config import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from rl_scaling.estimates import Estimate

console = Console(stderr=True, highlight=False)


# --- options are configs -------------------------------------------------------------------------------------------


def options_of(
    first: type[Any], *others: type[Any], leave_out: Collection[str] = (), only: str = "", **renamed: str
) -> type[Any]:
    """The fields of configs as options that may be left out: a dataclass of what `given` looks for.

    A field that several configs have is one option. Its help is the field's docstring, with the config's default. A
    switch and a list have the config's default (a switch has a --no- beside it); all else is None unless it is given.

    Args:
        first, others: frozen dataclasses with docstrings in Google's style.
        leave_out: fields that are set otherwise.
        only: what the options are for, said before their help: "Atari".
        renamed: options of other names than their fields: adaptive="exchange_rate".

    >>> from rl_scaling.agents.config import A2CConfig, PPOConfig
    >>> given(options_of(A2CConfig, PPOConfig)(epochs=2, rmsprop_epsilon_inside_root=False))
    {'rmsprop_epsilon_inside_root': False, 'epochs': 2}
    """
    configs = (first, *others)
    option_of = {field: option for option, field in renamed.items()}
    found: dict[str, list[tuple[type[Any], Any]]] = {}
    for config in configs:
        types = typing.get_type_hints(config)
        for f in dataclasses.fields(config):
            if f.name not in leave_out:
                found.setdefault(f.name, []).append((config, types[f.name]))
    fields = [
        (option_of.get(name, name), *_option(name, [config for config, _ in having], having[0][1], len(configs), only))
        for name, having in found.items()
    ]
    made = dataclasses.make_dataclass(f"{first.__name__}Options", fields, frozen=True)
    made.renamed = renamed
    return made


def _option(name: str, having: Sequence[type[Any]], kind: Any, configs: int, only: str) -> tuple[Any, Any]:
    """The type of an option, with its help: one for all configs, or one for each where they differ; its default."""
    helps, kept = {}, kind is bool or typing.get_origin(kind) is tuple
    defaults = [config.__dataclass_fields__[name].default for config in having]
    for config, default in zip(having, defaults, strict=True):
        known = default is not dataclasses.MISSING and not kept
        helps[config] = _field_helps(config).get(name, name) + (f" (default {default})" if known else "")
    if len(set(helps.values())) == 1 and len(helps) == configs:
        text = next(iter(helps.values()))
        text = f"{only}: {text}" if only else text[:1].upper() + text[1:]
    else:
        same: dict[str, list[str]] = {}
        for config, help in helps.items():
            same.setdefault(help, []).append(getattr(config, "family", config.kind.upper()))
        text = "; ".join(f"{', '.join(kinds)}: {help}" for help, kinds in same.items())
    if kept and len(set(defaults)) == 1:
        hint = None if kind is bool or defaults[0] else ""  # nothing is to be said of an empty list
        return Annotated[kind, tyro.conf.arg(help=text, help_behavior_hint=hint)], field(default=defaults[0])
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    metavar = f"{{{','.join(choices)}}}" if choices else _METAVARS.get(kind)
    return Annotated[kind | None, tyro.conf.arg(help=text, help_behavior_hint="", metavar=metavar)], field(default=None)


_METAVARS = {int: "INT", float: "FLOAT", str: "STR"}


def _field_helps(config: type[Any]) -> dict[str, str]:
    """What the docstrings of a config and its bases say of its fields."""
    helps: dict[str, str] = {}
    for base in reversed(config.__mro__):
        for param in docstring_parser.parse(base.__doc__ or "").params:
            for name in param.arg_name.split(", "):
                helps[name] = " ".join((param.description or "").split())
    return helps


def given(options: Any) -> dict[str, Any]:
    """The fields of the config that options were given for, by name: all that is not at its default."""
    renamed = type(options).renamed
    values = {f.name: (getattr(options, f.name), f.default) for f in dataclasses.fields(options)}
    return {renamed.get(name, name): value for name, (value, default) in values.items() if value != default}


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


def unset(metavar: str, **more: Any) -> Any:
    """An option that is None or empty unless it is given; its help says what happens then."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="", **more)


Folders = Annotated[tuple[Path, ...], tyro.conf.Positional, unset("DIR")]


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


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as `as_json` gives them."""
    return [as_json({str(name): value for name, value in row.items()}) for row in table.to_dict("records")]


def json_estimate(estimate: Estimate) -> dict[str, Any]:
    """A number with its interval as `as_json` gives it."""
    return as_json({"value": estimate.value, "low": estimate.low, "high": estimate.high})


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
