"""What configs refuse, and how they say so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import field
from typing import Any


class ConfigError(Exception):
    """A description of a run that cannot be run; the message is one line that says what to do."""


def require(condition: bool, message: str) -> None:
    """Refuse with a message unless a condition holds."""
    if not condition:
        raise ConfigError(message)


def added_later(default: Any) -> Any:
    """A field that older configs do not have: left out of the canonical config while it has its default.

    So a question that could be asked before keeps its run id, and what was stored before stays its answer.
    """
    return field(default=default, metadata={"added_later": True})


def as_declared(owner: Any) -> None:
    """Make numbers what their fields declare: 2e6 and 2000000, or 1 and 1.0, are one question with one run id."""
    for f in dataclasses.fields(owner):
        value = getattr(owner, f.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and f.type in ("int", "float"):
            require(f.type == "float" or float(value).is_integer(), f"{f.name} is {value}: give a whole number")
            object.__setattr__(owner, f.name, float(value) if f.type == "float" else int(value))


def require_positive(owner: object, *names: str) -> None:
    """Refuse fields that are not finite and above 0."""
    for name in names:
        value = getattr(owner, name)
        require(math.isfinite(value) and value > 0, f"{name} is {value}: give a positive number")


def require_fraction(owner: object, *names: str) -> None:
    """Refuse fields that are not from 0 to 1."""
    for name in names:
        value = getattr(owner, name)
        require(0 <= value <= 1, f"{name} is {value}: give a number from 0 to 1")


def require_one_of(owner: object, name: str, *allowed: str) -> None:
    """Refuse a field that has none of the allowed values."""
    value = getattr(owner, name)
    what = "schedule" if name.endswith("schedule") else name
    require(value in allowed, f"no {what} {value!r}: {', '.join(allowed[:-1])} or {allowed[-1]}")


def neighbours(numbers: Iterable[int], wanted: int) -> str:
    """The numbers next to the one that was wanted, in words."""
    ordered = sorted(numbers)
    near = [*(n for n in ordered if n < wanted)][-1:] + [n for n in ordered if n > wanted][:1]
    return " or ".join(map(str, near))
