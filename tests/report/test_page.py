"""The page: one file, honest words, nothing fetched, hostile names harmless."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rl_scaling.agents.config import A2CConfig
from rl_scaling.analysis import fit_runs
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs.config import AtariConfig
from rl_scaling.records import IN_A_TABLE, TrainingRecord, fields_of
from rl_scaling.report import Section, write_report
from rl_scaling.report.page import page_html
from rl_scaling.report.section import task_parts
from rl_scaling.store import Store, list_runs, load_runs
from tests.report.synthetic import known_fit, run_rows, sweep_rows

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(2)> ${1+1} \"'&amp;"


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._raw = ""
        self.feed(text)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.words.append(data)


def page(*sections: Section) -> _Page:
    return _Page(page_html(sections, title="A title"))


@pytest.fixture(scope="module")
def sweep() -> pd.DataFrame:
    return sweep_rows((20, 80, 320, 1280), seeds=(0,), rows=30, frames=3_000_000)


def section(runs: pd.DataFrame, goals: list[float], *, heading: str = "Part", **words: Any) -> Section:
    return Section(heading=heading, runs=runs, fit=known_fit(runs, goals), **words)


def test_algorithms_on_one_game_stand_side_by_side(sweep: pd.DataFrame) -> None:
    task = sweep["task"].iloc[0]
    other = sweep.assign(task=f"{task} other", run_id=sweep["run_id"] + "-other")
    both = pd.concat([sweep, other], ignore_index=True)
    read = page(Section(heading="Part", runs=both, fit=fit_runs(both, [2, 5], resamples=20)))
    assert "Algorithms side by side" in read.text
    assert sum(attributes.get("data-name") == "algorithms" for _, attributes in read.tags) == 1
    elsewhere = other.assign(task="Elsewhere a2c", problem="Elsewhere")
    apart = pd.concat([sweep, elsewhere], ignore_index=True)
    read = page(Section(heading="Part", runs=apart, fit=fit_runs(apart, [2, 5], resamples=20)))
    assert "Algorithms side by side" not in read.text


@pytest.fixture(scope="module")
def twice(sweep: pd.DataFrame) -> str:
    """A page of two parts with the same data."""
    part = section(sweep, [2, 5])
    parts = task_parts(part)
    return page_html([part, part], title="Twice", parts=[parts, parts])


@pytest.fixture(scope="module")
def once(sweep: pd.DataFrame) -> str:
    return page_html([section(sweep, [2, 5])], title="A title")


def test_vega_is_there_once_and_nothing_is_fetched(once: str, twice: str) -> None:
    text = twice
    assert text.count("window.vegaEmbed") == 1
    read = _Page(text)
    for name, attributes in read.tags:
        assert name not in ("iframe", "object", "embed", "base", "img"), name
        for key in ("src", "href", "action", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#part-", "data:,")), (name, key, value)
    assert "default-src 'none'" in text
    assert "url(" not in text.partition("</style>")[0]
    assert len(text) < len(once) * 1.5, "the same data is carried twice"


def test_a_section_without_charts_carries_no_scripts() -> None:
    empty = section(run_rows(20, 1e-3, 0, rows=3).head(0), [], explanation="Nothing yet.")
    text = page_html([empty], title="Empty")
    assert "<script" not in text
    assert "There are no runs in this part yet." in text


def test_every_goal_has_its_row_with_interval_and_status(sweep: pd.DataFrame) -> None:
    fit = known_fit(sweep, [2, 5, 10, 200])
    read = page(Section(heading="Part", runs=sweep, fit=fit))
    assert read.text.count("fitted") >= int((fit.fits["status"] == "ok").sum()) > 0
    assert "200" in read.words
    assert "not reached" in read.words
    for _, row in fit.fits[fit.fits["status"] == "ok"].iterrows():
        assert f"{round(row['steps_min'], -1):,.0f}"[:2] in read.text


def test_the_answer_names_the_hardest_fitted_goal_and_environments(once: str) -> None:
    read = _Page(once)
    assert "To reach a score of 5, the critical batch size is 260 frames per update" in read.text
    assert "about 51 environments with 5 frames each" in read.text
    assert "for a score of 2 it is 110" in read.text


def test_a_bound_is_told_as_a_bound() -> None:
    runs = sweep_rows((20, 40, 80), seeds=(0,), rows=30, frames=3_000_000)
    read = page(section(runs, [10]))
    assert "the critical batch size is at least 330 frames per update" in read.text
    assert "all below the turn" in read.text


def test_no_goal_reached() -> None:
    read = page(section(run_rows(20, 1e-3, 0, frames=50_000, rows=20), [50]))
    assert "No run reached a goal" in read.text
    assert "No Pareto front" in read.text
    assert "Learning curves: score against frames" in read.text


def test_one_run_without_noise_or_goals() -> None:
    read = page(section(run_rows(20, 1e-3, 0, rows=20, noise=False), []))
    assert "No goals were given" in read.text
    assert "No noise scale: it was not measured" in read.text
    assert "Noise scale while training" not in read.text
    assert "1 run: 1 finished" in read.text


def test_a_run_that_never_finished_an_episode() -> None:
    run = run_rows(20, 1e-3, 0, rows=4, status="diverged", note="loss is not finite")
    run["episodes"] = 0
    run["score"] = float("nan")
    read = page(section(run, [5]))
    assert "No learning curves" in read.text
    assert "1 diverged" in read.text
    assert "loss is not finite" in read.text


def test_how_it_was_run(sweep: pd.DataFrame) -> None:
    runs = sweep.assign(status="stopped")
    machines = [{"machine": {"cores": 2}, "commit": "abc"}] * 3 + [{"machine": {"cores": 8}, "commit": "abc"}]
    read = page(section(runs, [2], command="rl-scaling sweep", notes=["A note."], provenance=machines))
    stopped = "12 runs: 12 stopped, nothing left to reach"
    for words in ("rl-scaling sweep", "A note.", stopped, "36 million in total", "8.33 h", "abc"):
        assert words in read.text, words
    assert "2 (3 runs); 8 (1 run)" in read.text


def test_sections_say_which_is_which(sweep: pd.DataFrame) -> None:
    live = section(run_rows(20, 1e-3, 0, rows=10), [], heading="Live", badge="measured just now")
    shipped = section(sweep, [2], heading="Shipped", badge="shipped with the project", explanation="Longer.\n\nMore.")
    read = page(live, shipped)
    assert [a["href"] for name, a in read.tags if name == "a"] == ["#part-0", "#part-1"]
    assert read.text.index("measured just now") < read.text.index("shipped with the project")
    assert {a.get("id") for name, a in read.tags if name == "section"} == {"part-0", "part-1"}


def test_hostile_names_stay_text() -> None:
    runs = run_rows(20, 1e-3, 0, rows=10, task=HOSTILE, note=HOSTILE)
    runs["run_id"] = HOSTILE
    words = dict.fromkeys(("heading", "explanation", "badge", "command"), HOSTILE)
    read = page(section(runs, [1], **words, notes=[HOSTILE], provenance=[{HOSTILE: HOSTILE}]))
    scripts = [attributes for name, attributes in read.tags if name == "script"]
    plain = page(section(run_rows(20, 1e-3, 0, rows=10), [1]))
    assert len(scripts) == sum(name == "script" for name, _ in plain.tags)
    assert not [name for name, _ in read.tags if name == "img"]
    assert read.text.count("alert('x')") >= 8


def test_many_runs_stay_below_five_megabytes() -> None:
    base = run_rows(80, 1e-3, 0, rows=60)
    cells = [(f"{b}-{i}-{s}", b, 5e-4 * 1.1**i, s) for b in (20, 40, 80, 160) for i in range(30) for s in range(3)]
    trials = pd.DataFrame(cells, columns=pd.Index(["run_id", "batch_size", "learning_rate", "seed"]))
    runs = base.drop(columns=list(trials.columns)).merge(trials, how="cross")
    runs["examples"] = runs["updates"] * runs["batch_size"]
    assert len(page_html([section(runs, [])], title="Many")) < 3_000_000


def test_written_whole_with_figures(tmp_path: Path, sweep: pd.DataFrame) -> None:
    small = section(sweep, [2, 5])
    target = tmp_path / "deep" / "report.html"
    figures = tmp_path / "figures"
    empty = section(sweep.head(0), [])
    assert write_report([empty], target, title="First") == target
    write_report([small], str(target), title="Second", figures=figures)
    assert "<title>Second</title>" in target.read_text(encoding="utf-8")
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]
    names = sorted(p.name for p in figures.iterdir())
    assert names[:3] == [f"best-learning-rates.{ending}" for ending in ("pdf", "png", "svg")]
    assert len(names) == 3 * 8
    for path in figures.iterdir():
        content = path.read_bytes()
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG")
        elif path.suffix == ".pdf":
            assert content.startswith(b"%PDF")
        else:
            assert content.startswith(b"<svg")
            assert b"var(--" not in content


def test_no_sections_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give at least one"):
        write_report([], tmp_path / "x.html", title="x")


def test_from_a_real_store_through_the_real_fit(tmp_path: Path) -> None:
    """What the store reads and the analysis fits can be drawn as it comes."""
    for num_envs in (4, 16, 64):
        agent = A2CConfig(network="small")
        config = RunConfig(environment=AtariConfig(game="Breakout", num_envs=num_envs), agent=agent, frames=3_000_000)
        rows = run_rows(config.batch_size, agent.learning_rate, 0, rows=25, frames=3_000_000)
        with Store(tmp_path / "store").open_run(config, {"machine": "a test"}) as writer:
            for row in rows.to_dict("records"):
                writer.append(TrainingRecord(**{n: row[IN_A_TABLE.get(n, n)] for n in fields_of(TrainingRecord)}))
            writer.seal("done")
    runs = load_runs(tmp_path / "store")
    fit = fit_runs(runs, [2, 5, 400])
    provenance = [info.provenance for info in list_runs(tmp_path / "store")]
    part = Section(heading="From a store", runs=runs, fit=fit, provenance=provenance)
    read = _Page(write_report([part], tmp_path / "r.html", title="x").read_text(encoding="utf-8"))
    assert "3 runs: 3 finished" in read.text
    assert "a test" in read.text
    assert "Breakout a2c network=small" in read.text
    assert "What each batch size costs" in read.text
    assert read.text.count("no run reached the goal") == 1
