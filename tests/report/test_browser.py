"""The page in a real browser, with no network to be had."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from rl_scaling.report import Overview, Section, write_report
from tests.report.synthetic import known_fit, run_rows, sweep_rows

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# Requests that a page makes carry this annotation in Chromium's log; the browser's own carry others.
_REQUEST = r'"traffic_annotation":101845102,"url":"(https?://[^"]+)"'
# Points at a chart's marks as a reader would, and writes what the tooltip says into the page.
_HOVER = """
<script>
(() => {
  const wait = setInterval(() => {
    if (!document.documentElement.dataset.charts) return;
    clearInterval(wait);
    const said = [...document.querySelectorAll('.chart')].map((chart) => {
      for (const mark of chart.querySelectorAll('g.role-mark path')) {
        const box = mark.getBoundingClientRect();
        const at = {bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2};
        for (const type of ['pointerover', 'pointermove', 'mousemove']) mark.dispatchEvent(new MouseEvent(type, at));
        const tip = document.querySelector('#vg-tooltip-element.visible');
        if (tip) return tip.textContent;
      }
      return '';
    });
    document.documentElement.dataset.said = JSON.stringify(said);
  }, 50);
})();
</script>
"""


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page."""

    dom: str
    console: list[str]
    requests: list[str]
    said: list[str]


def visit(page: Path, folder: Path, width: int = 1280) -> Visit:
    """Opens a page in headless Chromium; every host name fails to resolve and every request is logged."""
    assert CHROMIUM is not None
    log = folder / "net.json"
    switches = [
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking",
        "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --enable-logging=stderr",
    ]
    command = [
        CHROMIUM,
        *" ".join(switches).split(),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        f"--window-size={width},2400",
        "--virtual-time-budget=30000",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    requests = re.findall(_REQUEST, log.read_text(encoding="utf-8", errors="replace"))
    found = re.search(r'data-said="([^"]*)"', done.stdout)
    said = json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&")) if found else []
    return Visit(done.stdout, console, requests, said)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    folder = tmp_path_factory.mktemp("browser")
    sweep = sweep_rows((20, 80, 320, 1280), seeds=(0,), rows=30, frames=3_000_000)
    live = pd.concat([run_rows(b, 1e-3, 0, rows=12, frames=60_000, task="<b>Pong</b>") for b in (20, 80)])
    sections = [
        Section(heading="Live", runs=live, fit=known_fit(live, [30]), notes=["</script><script>throw 1</script>"]),
        Section(heading="Shipped", runs=sweep, fit=known_fit(sweep, [2, 5, 10, 50])),
    ]
    domains = {str(task): "Reinforcement learning" for task in (*live["task"].unique(), *sweep["task"].unique())}
    overview = Overview(fit=sections[1].fit, domains=domains, runs=12)
    page = write_report(sections, folder / "report.html", title="A test", overview=overview)
    before, end, after = page.read_text(encoding="utf-8").rpartition("</body>")
    page.write_text(before + _HOVER + end + after, encoding="utf-8")
    return visit(page, folder)


def _charts(dom: str) -> list[str]:
    """The markup of each drawn chart."""
    return [part.partition("</svg>")[0] for part in dom.split('class="chart')[1:]]


def test_every_chart_is_drawn(seen: Visit) -> None:
    assert 'data-charts="drawn"' in seen.dom
    charts = _charts(seen.dom)
    assert len(charts) == 1 + 4 + 8
    for chart in charts:
        assert "<svg" in chart
        groups = re.findall(
            r'<g class="mark-(?:symbol|line|rule|area) role-mark[^"]*"[^>]*>(.*?)</g>', chart, re.DOTALL
        )
        assert sum(group.count("<path") + group.count("<line") for group in groups) >= 2


def test_the_console_stays_empty(seen: Visit) -> None:
    assert seen.console == []


def test_nothing_is_asked_of_a_network(seen: Visit, tmp_path: Path) -> None:
    assert seen.requests == []
    asking = tmp_path / "asking.html"
    asking.write_text("<script>fetch('https://example.com/x').catch(() => 0)</script>", encoding="utf-8")
    assert visit(asking, tmp_path).requests == ["https://example.com/x"], "this test would not see a request"


def test_marks_tell_what_they_are(seen: Visit) -> None:
    assert len(seen.said) == 1 + 4 + 8
    for words in seen.said:
        assert re.search(r"batch size|goal \(score\)|noise scale", words), seen.said


def test_charts_fit_their_places(seen: Visit) -> None:
    widths = [int(float(width)) for width in re.findall(r'<svg[^>]* width="([\d.]+)"', seen.dom)]
    assert len(widths) == 1 + 4 + 8
    assert max(widths) <= 1180
    assert min(widths) >= 300
