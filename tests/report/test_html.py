"""Hostile strings stay text."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.report.html import escape, json_script, table, tag

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--",
    '"><img src=x onerror=alert(1)>',
    "a & b",
    "]]>",
    "'",
    "\x00\ud800",
]
# HTML reads a carriage return as a new line, and these characters are replaced on purpose.
_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]))


class _Read(HTMLParser):
    """Collects elements, attributes and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(markup: str) -> _Read:
    reader = _Read()
    reader.feed(markup)
    reader.close()
    return reader


@given(_TEXT | st.sampled_from(HOSTILE[:-1]), _TEXT)
def test_text_and_attributes_come_back_as_they_were(text: str, attribute: str) -> None:
    read = _read(tag("p", text, title=attribute))
    assert read.elements == [("p", {"title": attribute})]
    assert "".join(read.text) == text


@given(st.recursive(st.text() | st.integers() | st.sampled_from(HOSTILE), lambda inner: st.lists(inner, max_size=3)))
def test_data_cannot_end_its_script(content: object) -> None:
    markup = json_script("data", content)
    inside = markup.removeprefix('<script type="application/json" id="data">').removesuffix("</script>")
    assert "<" not in inside
    assert json.loads(inside) == content
    markup.encode()


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_script("data", [float("nan")])


def test_characters_that_html_forbids_are_replaced() -> None:
    assert escape("a\x00b\ud800c") == "a�b�c"
    assert escape(tag("b", "<")) == "<b>&lt;</b>"


def test_a_table_has_a_head_for_every_column() -> None:
    read = _read(table(["goal", "why"], [[1, "<x>"], [2, "y"]], words=[1]))
    names = [name for name, _ in read.elements]
    assert names.count("th") == 2
    assert names.count("td") == 4
    assert "<x>" in read.text
