"""What a newcomer touches: the how-to pages, followed word for word in a copy of the package, then used by command."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tests.docs.newcomer import PAGES, ROOT, Additions, additions_of, copy_of_the_package, first_program_of, python

# Three files each: what it is, its test, one line of a registry.
ADDED = {
    "add-an-algorithm": ["agents/fading.py", "tests/agents/test_fading.py", "rl_scaling/domains/rl/registry.py"],
    "add-a-task": [
        "rl_scaling/domains/supervised/moons.py",
        "tests/domains/supervised/test_moons.py",
        "rl_scaling/domains/supervised/problems.py",
    ],
}


@pytest.fixture(params=ADDED)
def followed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A page's name, and a copy of the package in which it was followed."""
    added, checkout = additions_of(request.param), copy_of_the_package(tmp_path)
    assert added.touched == ADDED[request.param]
    added.apply(checkout)
    return request.param, checkout


def test_what_a_page_adds_passes_its_test_and_works_by_command(followed: tuple[str, Path]) -> None:
    page, checkout = followed
    python(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", ADDED[page][1])
    statuses = {row["status"] for row in BY_COMMAND[page](checkout)}
    assert statuses <= {"done", "stopped"}


def train_and_sweep_fading_a2c(checkout: Path) -> list[dict[str, object]]:
    trained = ["train", "fading-a2c", "--env-id", "CartPole-v1", "--network", "mlp", "--frames", "200"]
    trained += ["--trace-decay", "0.9", "--threads", "1", "--out", "trained", "--json"]
    swept = ["sweep", "rl", "--algorithm", "fading-a2c", "--game", "Pong", "--num-envs", "2", "--network", "small"]
    swept += ["--trace-decay", "0.9", "--frames", "20", "--learning-rates", "1e-3", "--max-start-steps", "0"]
    swept += ["--workers", "1", "--out", "swept", "--json"]
    one, others = (json.loads(python(checkout, "-m", "rl_scaling", *words)) for words in (trained, swept))
    assert {row["task"] for row in others} == {"Pong fading-a2c max_start_steps=0 network=small trace_decay=0.9"}
    return [one, *others]


def train_and_sweep_moons(checkout: Path) -> list[dict[str, object]]:
    trained = ["train", "supervised", "--dataset", "moons", "--model", "relu-32", "--epochs", "1", "--threads", "1"]
    trained += ["--out", "trained", "--json"]
    swept = ["sweep", "supervised", "--task", "moons", "--optimizers", "sgd", "--batch-sizes", "32", "--rates", "1"]
    swept += ["--extensions", "0", "--epochs", "1", "--updates", "5", "--seeds", "0", "--workers", "1", "--json"]
    one, others = (json.loads(python(checkout, "-m", "rl_scaling", *words)) for words in (trained, swept))
    assert {row["task"] for row in others} == {"moons-relu-32 sgd"}
    assert {row["store"] for row in others} == {"runs/moons"}
    return [one, *others]


BY_COMMAND = {"add-an-algorithm": train_and_sweep_fading_a2c, "add-a-task": train_and_sweep_moons}


@pytest.mark.parametrize("page", ADDED)
def test_a_page_imports_nothing_of_the_command_line(page: str) -> None:
    assert "rl_scaling.cli" not in (PAGES / f"{page}.md").read_text()


def test_a_chart_is_its_file_and_one_line(tmp_path: Path) -> None:
    """The page's program begins with the chart's file; below its function the program uses it."""
    checkout = copy_of_the_package(tmp_path)
    program = first_program_of("add-a-chart")
    ends = [node.end_lineno for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)]
    chart = "\n".join(program.splitlines()[: ends[-1]]) + "\n"
    added = Additions(
        files={"rl_scaling/report/charts/ratio.py": chart},
        lines={"rl_scaling/report/charts/__init__.py": ' MODULES = (\n+    "ratio",\n'},
    )
    assert len(added.touched) == 2
    added.apply(checkout)
    python(checkout, "-m", "rl_scaling", "report", ROOT / "results" / "nqm", "--out", "page.html")
    assert "<h4>B_crit over B_simple</h4>" in (checkout / "page.html").read_text()


@pytest.mark.skipif(not (PAGES / "add-an-executor.md").exists(), reason="the page is not written")
def test_an_executor_is_its_file_its_test_and_one_line(tmp_path: Path) -> None:
    """The page's first program is the file; the line is the one of `EXECUTORS`; its second program is the test's."""
    page, checkout = (PAGES / "add-an-executor.md").read_text(), copy_of_the_package(tmp_path)
    (line,) = re.findall(r'^    ("\w+": "rl_scaling\.[\w.:]+",)$', page, re.M)
    ((name, place),) = ast.literal_eval("{" + line + "}").items()
    added = Additions(
        files={place.partition(":")[0].replace(".", "/") + ".py": first_program_of("add-an-executor")},
        lines={"rl_scaling/sweeps/executors/__init__.py": f" EXECUTORS = {{\n+    {line}\n"},
    )
    assert len(added.touched) == 2, "and its test"
    added.apply(checkout)
    words = ["sweep", "nqm", "--optimizers", "sgd", "--batch-sizes", "16", "--rates", "1", "--targets", "0.1", "--json"]
    rows = json.loads(python(checkout, "-m", "rl_scaling", *words, "--executor", name, "--workers", "1"))
    assert {row["status"] for row in rows} == {"done"}
