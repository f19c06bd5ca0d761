"""HTML in which every string is escaped unless it was made here, and the page's style sheet and its one script."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rl_scaling.report.theme import FONT, colour_variables

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
        words: columns (counted from 0) that hold words and are aligned left; the others hold numbers.
    """
    kinds = ["words" if i in words else None for i in range(len(heads))]
    head = tag("tr", *(tag("th", h, scope="col", class_=kind) for h, kind in zip(heads, kinds, strict=True)))
    body = [tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows]
    inner = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex="0")


_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 FONT}
main,header.top{max-width:1180px;margin:0 auto;padding:0 20px}
header.top{padding-top:36px;padding-bottom:8px}
h1{font-size:clamp(1.55rem,4vw,2.2rem);line-height:1.2;margin:0 0 8px;letter-spacing:-.015em;text-wrap:balance}
h2{font-size:clamp(1.3rem,3vw,1.6rem);line-height:1.25;margin:0;letter-spacing:-.01em;text-wrap:balance}
h3{font-size:1.12rem;margin:28px 0 10px}
p{margin:0 0 10px;max-width:76ch}
a{color:var(--accent)}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace;font-size:.88em}
pre{background:var(--page);border:1px solid var(--line);border-radius:8px;padding:10px 12px;margin:6px 0;
white-space:pre-wrap;overflow-wrap:anywhere}
nav ul{display:flex;flex-wrap:wrap;gap:8px;list-style:none;padding:0;margin:14px 0 0}
nav a{display:block;padding:5px 13px;border:1px solid var(--line);border-radius:999px;background:var(--surface);
text-decoration:none;font-size:.92rem}
section{margin:34px 0 56px}
.heading{display:flex;flex-wrap:wrap;align-items:center;gap:8px 12px;margin-bottom:8px}
.soft{color:var(--ink-soft)}
.pill{display:inline-block;padding:1px 9px;border-radius:999px;border:1px solid currentColor;font-size:.8rem;
font-weight:600;white-space:nowrap}
.pill.good{color:var(--good)}.pill.warn{color:var(--warn)}.pill.soft{color:var(--ink-soft)}
.pill.badge{color:var(--accent)}
.verdict{font-size:1.08rem;border-left:4px solid var(--accent);padding:8px 14px;margin:14px 0 18px;
background:var(--surface);border-radius:0 8px 8px 0;max-width:none}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:18px}
.card{margin:0 0 18px}.card+h3{margin-top:30px}.missing{margin:0 0 12px}
figure,.card{background:var(--surface);border:1px solid var(--line);border-radius:12px;padding:16px 18px;
min-width:0}
figure{margin:0}
figure.wide{grid-column:1/-1}
figure h4{margin:0 0 4px;font-size:1rem;line-height:1.3}
figcaption{color:var(--ink-soft);font-size:.86rem;line-height:1.45;margin-top:8px}
.chart{width:100%;min-height:330px;display:block}
.chart.drawn{min-height:0}
.chart svg{max-width:100%;height:auto;display:block;overflow:visible}
.chart .vega-bindings{margin:6px 0 0;font-size:.88rem}
.chart select{font:inherit;color:var(--ink);background:var(--page);border:1px solid var(--line);border-radius:6px;
padding:2px 6px;margin-left:4px}
.save{font:inherit;font-size:.8rem;color:var(--ink-soft);background:none;border:0;padding:0;cursor:pointer;
text-decoration:underline;text-underline-offset:2px;float:right}
.failed{color:var(--warn);font-size:.9rem}
.scroll{overflow-x:auto;margin:0 -4px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:right;border-bottom:1px solid var(--line);vertical-align:baseline}
th{color:var(--ink-soft);font-weight:600;font-size:.82rem;line-height:1.3}
td:first-child,th:first-child{text-align:left}
td{white-space:nowrap}
th.words,td.words{text-align:left;white-space:normal;min-width:9ch}
td.words:last-child{min-width:26ch}
tbody tr:last-child td{border-bottom:0}
details{margin-top:12px}
summary{cursor:pointer;color:var(--accent);font-size:.92rem;margin-bottom:6px}
.facts{display:grid;grid-template-columns:minmax(9ch,max-content) minmax(0,1fr);gap:4px 18px;margin:0;font-size:.92rem}
.facts dt{color:var(--ink-soft)}.facts dd{margin:0;overflow-wrap:anywhere}
footer{max-width:1180px;margin:0 auto;padding:0 20px 40px;color:var(--ink-soft);font-size:.85rem}
#vg-tooltip-element{visibility:hidden;position:fixed;z-index:1000;pointer-events:none}
#vg-tooltip-element{font:13px/1.4 FONT;background:var(--surface);color:var(--ink);border:1px solid var(--line);
border-radius:8px;padding:8px 10px;box-shadow:0 4px 18px rgb(0 0 0/.18);max-width:min(340px,80vw)}
#vg-tooltip-element.visible{visibility:visible}
#vg-tooltip-element table{width:auto;font-size:13px}
#vg-tooltip-element table tr td{padding:1px 5px;border:0;white-space:normal;overflow-wrap:anywhere;max-width:220px}
#vg-tooltip-element table tr td.key{color:var(--ink-soft);text-align:right;max-width:160px}
#vg-tooltip-element table tr td.value{text-align:left}
@media(max-width:820px){.grid{grid-template-columns:minmax(0,1fr)}}
@media(max-width:520px){main,header.top,footer{padding-left:12px;padding-right:12px}
figure,.card{padding:13px 12px;border-radius:10px}
.facts{grid-template-columns:minmax(0,1fr);gap:0}.facts dd{margin-bottom:8px}}
@media print{:root{--page:#fff}body{font-size:10pt}figure,.card,tr,.verdict{break-inside:avoid}h2,h3{break-after:avoid}
nav,.save,.vega-bindings{display:none}.scroll{overflow:visible}td.words:last-child{min-width:12ch}section{margin:20px 0}
.grid{display:block}figure{display:inline-block;width:49%;margin-bottom:10px;vertical-align:top}figure.wide{width:100%}}
"""

# Specifications are drawn one after the other so that the page can be read while charts appear. Colours are CSS
# variables; a saved SVG gets the values that are on the screen.
SCRIPT = """
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const column = (c) => Array.isArray(c) ? c : c.places.map((i) => c.values[i]);
  const rows = (columns) => {
    const names = Object.keys(columns), lists = names.map((n) => column(columns[n]));
    return names.length ? lists[0].map((_, i) => Object.fromEntries(names.map((n, j) => [n, lists[j][i]]))) : [];
  };
  const plain = (svg) => svg.replace(/var\\((--[\\w-]+)\\)/g,
    (_, name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  const save = async (view, name) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([plain(await view.toSVG())], {type: 'image/svg+xml'}));
    link.download = name + '.svg';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const options = {renderer: 'svg', actions: false, tooltip: {theme: 'page', disableDefaultStyle: true}};
  const draw = async (chart, data, config) => {
    const spec = read(chart.dataset.spec);
    spec.datasets = Object.fromEntries(spec.datasets.map((name) => [name, rows(data[name])]));
    const {view} = await vegaEmbed(chart, spec, {...options, config});
    chart.classList.add('drawn');
    const button = chart.parentElement.querySelector('.save');
    button.hidden = false;
    button.addEventListener('click', () => save(view, chart.dataset.name));
  };
  const start = async () => {
    const data = read('data'), config = read('config');
    let failed = 0;
    for (const chart of document.querySelectorAll('.chart')) {
      try { await draw(chart, data, config); }
      catch (error) {
        failed += 1;
        console.error(error);
        chart.classList.add('failed', 'drawn');
        chart.textContent = 'This chart could not be drawn: ' + error.message;
      }
    }
    document.documentElement.dataset.charts = failed ? 'failed' : 'drawn';
  };
  start();
})();
"""


def style_sheet() -> str:
    """The style sheet; dark colours follow the reader's setting on screens, print is always light."""
    light, dark = colour_variables(dark=False), colour_variables(dark=True)
    schemes = (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        "@media print{:root{color-scheme:light}}"
    )
    return schemes + _RULES.replace("FONT", FONT)
