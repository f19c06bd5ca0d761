"""The base of every config: checked, canonical and frozen; and the one border where plain data becomes configs.

A config holds the question and nothing about the machine that answers it: device, threads and versions are
provenance and belong to the store. The run id is a hash of the canonical config, so the same question asked twice is
answered once.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from rl_scaling.records import Identity

if TYPE_CHECKING:
    import cattrs

_Parsed = TypeVar("_Parsed")


class ConfigError(Exception):
    """A description of a run that cannot be run; the message is one line that says what to do."""


def added_later(default: Any) -> Any:
    """A field that older configs do not have: left out of the canonical config while it has its default.

    So a question that could be asked before keeps its run id, and what was stored before stays its answer.
    """
    return field(default=default, metadata={"added_later": True})


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every config and every part of one inherits: numbers as declared, then `check`.

    Subclasses are frozen dataclasses with keyword-only fields. One that stands beside others in the same place of a
    larger config has a `kind`, by which it is told from them in plain data.
    """

    def __post_init__(self) -> None:
        as_declared(self)
        self.check()

    def check(self) -> None:
        """Refuse what cannot be run; called once all fields are as declared.

        Raises:
            ConfigError: a field out of its range.
        """


class StorableConfig(Protocol):
    """What the store asks of the description of a run, whatever its domain: a frozen dataclass with these as well."""

    @property
    def identity(self) -> Identity:
        """What tells the run from others."""
        ...

    @property
    def run_id(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class RunDescription(Config):
    """A whole run of any domain: a `Config` with an identity and a run id."""

    domain: ClassVar[str]

    @property
    def identity(self) -> Identity:
        """What tells the run from others."""
        raise NotImplementedError

    @property
    def length(self) -> int:
        """What the run takes, in the unit that it counts."""
        raise NotImplementedError

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the checkpoint at the first reach of each goal, and the one at the end, stay with the run."""
        return False

    @property
    def task(self) -> str:
        """The task for people; runs of one task are compared."""
        return self.identity.task

    @property
    def run_id(self) -> str:
        """See `run_id_of`."""
        return run_id_of(self)


def as_declared(owner: Any) -> None:
    """Make numbers what their fields declare: 2e6 and 2000000, or 1 and 1.0, are one question with one run id."""
    for f in dataclasses.fields(owner):
        value = getattr(owner, f.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and f.type in ("int", "float"):
            require(f.type == "float" or float(value).is_integer(), f"{f.name} is {value}: give a whole number")
            object.__setattr__(owner, f.name, float(value) if f.type == "float" else int(value))


def run_id_of(config: Any) -> str:
    """Twelve hexadecimal digits that follow from the canonical config alone."""
    text = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain data; `kind` tells which class a nested config is, `added_later` may leave a field out."""
    plain = {"kind": config.kind} if hasattr(config, "kind") else {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("added_later") and value == f.default:
            continue
        plain[f.name] = _to_plain(value)
    return plain


def _to_plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_plain(part) for part in value]
    return to_dict(value) if dataclasses.is_dataclass(value) else value


def differing(owner: Any, *left_out: str) -> list[str]:
    """The settings of a config that differ from their defaults, as "name=value", for `variant_of`."""
    return [
        f"{f.name}={getattr(owner, f.name)}"
        for f in dataclasses.fields(owner)
        if f.name not in left_out and f.default is not dataclasses.MISSING and getattr(owner, f.name) != f.default
    ]


def variant_of(settings: Iterable[str]) -> str:
    """The variant of an `Identity`: settings in the order of their names, whatever order they were declared in."""
    return " ".join(sorted(settings))


# --- from plain data ----------------------------------------------------------------------------------------------

_FIND: dict[type[Any], Callable[[str], type[Any]]] = {}


def one_of_kinds(base: type[Any], find: Callable[[str], type[Any]]) -> None:
    """Say which class stands for a `kind` where a field declares `base`; `find` refuses what it does not know.

    `find` raises ConfigError for an unknown kind.
    """
    _FIND[base] = find
    _converter.cache_clear()


def parse(declared: type[_Parsed], plain: Any, what: str) -> _Parsed:
    """Plain data, as JSON gives it, as a value of the declared type; the inverse of `to_dict`.

    Args:
        declared: a dataclass of typed fields, configs among them.
        plain: what was read.
        what: what is being read, for messages: "run's config".

    Raises:
        ConfigError: a field that is missing, unknown, of another type or out of its range; one line that names it.
    """
    import cattrs

    try:
        return _converter().structure(plain, declared)
    except ConfigError as error:
        raise ConfigError(f"not a {what}: {error}") from error
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ConfigError(f"not a {what}: {_first_message(error)}") from error


@functools.cache
def _converter() -> cattrs.Converter:
    """Strict: no field may be unknown, no text stands for a number and no number for a truth value."""
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, lambda value, _: _whole(value))
    converter.register_structure_hook(float, lambda value, _: _real(value))
    for exact in (str, bool):
        converter.register_structure_hook(exact, _exactly)
    converter.register_structure_hook_factory(dataclasses.is_dataclass, lambda cls: _by_fields(converter, cls))
    for base, find in _FIND.items():
        converter.register_structure_hook_func(lambda declared, base=base: declared is base, _by_kind(find))
    return converter


def _by_kind(find: Callable[[str], type[Any]]) -> Callable[[Any, Any], Any]:
    def structure(plain: Any, _: Any) -> Any:
        if not isinstance(plain, dict) or not isinstance(plain.get("kind"), str):
            raise ValueError("no 'kind' tells what it is")
        declared = find(plain["kind"])  # may load what registers further kinds
        return _converter().structure({k: v for k, v in plain.items() if k != "kind"}, declared)

    return structure


def _by_fields(converter: cattrs.Converter, declared: type[Any]) -> Callable[[Any, Any], Any]:
    """A class from its fields; `to_dict` says its kind too, if it has one."""
    from cattrs.gen import make_dict_structure_fn

    whole = make_dict_structure_fn(declared, converter, _cattrs_forbid_extra_keys=True)

    def structure(plain: Any, _: Any) -> Any:
        if not isinstance(plain, Mapping):
            raise ValueError(f"{plain!r} has no fields")
        kind = getattr(declared, "kind", None)
        if kind is not None and plain.get("kind") == kind:
            plain = {name: value for name, value in plain.items() if name != "kind"}
        return whole(plain, declared)

    return structure


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _exactly(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is not {'text' if kind is str else 'true or false'}")
    return value


def _first_message(error: BaseException) -> str:
    """The first thing that is wrong, with the name of its field, in one short line."""
    import cattrs

    names: list[str] = []
    while isinstance(error, cattrs.BaseValidationError | ExceptionGroup):
        error = error.exceptions[0]
        names += [
            str(note.name)
            for note in getattr(error, "__notes__", [])
            if isinstance(note, cattrs.AttributeValidationNote)
        ]
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        text = f"unknown field {sorted(error.extra_fields)[0]!r}"
    elif isinstance(error, KeyError):
        text, names = f"no field {error.args[0]!r}", names[:-1]
    else:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
    where = ".".join(names)
    return (f"{where}: {text}" if where and not isinstance(error, ConfigError) else text)[:300]


# --- checks -------------------------------------------------------------------------------------------------------


def require(condition: bool, message: str) -> None:
    """Refuse with a message unless a condition holds."""
    if not condition:
        raise ConfigError(message)


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
