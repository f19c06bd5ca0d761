"""HTML in which every string is escaped unless it was made here."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Characters that HTML forbids even when escaped, and lone surrogates, which cannot be written as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """A string that is markup already."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Anything as text that is safe in an element and in a quoted attribute; markup stays as it is."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(_FORBIDDEN.sub("�", str(value)), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other, each escaped."""
    return Html(between.join(escape(part) for part in parts))


def tag(name: str, *inside: object, **attributes: object) -> Html:
    """An element; `class_` stands for class, underscores for hyphens, None leaves an attribute out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(inside)}</{name}>")


def json_script(identity: str, content: Any) -> Html:
    """Data in a script element; it cannot end the element, whatever strings it holds.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Html(
        f'<script type="application/json" id="{escape(identity)}">{text.replace("<", chr(92) + "u003c")}</script>'
    )


def table(heads: Sequence[object], rows: Iterable[Sequence[object]], *, words: Sequence[int] = ()) -> Html:
    """A table that scrolls sideways where it does not fit.

    Args:
        heads: the column heads.
        rows: the cells.
        words: columns (counted from 0) that hold words and are aligned left; the others hold numbers.
    """
    kinds = ["words" if i in words else None for i in range(len(heads))]
    head = tag("tr", *(tag("th", h, scope="col", class_=kind) for h, kind in zip(heads, kinds, strict=True)))
    body = [tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows]
    inner = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex="0")
