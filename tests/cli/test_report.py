"""The report's command: domains, what has no goals, and the model laid over measured steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rl_scaling.cli import main
from rl_scaling.cli.analyse import load_and_fit
from rl_scaling.cli.report import predicted_steps
from rl_scaling.domains.nqm.config import NQMConfig
from rl_scaling.domains.nqm.domain import records
from rl_scaling.store import Store
from tests.cli.commands import run


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nqm")
    sizes = ["4", "64", "1024", "16384"]
    words = ["sweep", "nqm", "--optimizers", "sgd", "ema", "--batch-sizes", *sizes, "--rates", "1", "--targets", "0.1"]
    assert main([*words, "--out", str(folder)]) == 0
    return folder


def test_the_model_fitted_to_its_own_sgd_predicts_its_average(swept: Path) -> None:
    runs, fit = load_and_fit((swept,))
    predicted = predicted_steps(runs, fit)
    assert set(predicted["task"]) == {"NQM sgd", "NQM ema"}
    measured = fit.fronts.astype({"batch_size": float})
    for task, found in measured.groupby("task"):
        line = predicted[predicted["task"] == task]
        at_points = np.interp(np.log(found["batch_size"]), np.log(line["batch_size"]), np.log(line["updates"]))
        np.testing.assert_allclose(np.log(found["updates"]), at_points, atol=0.03)


def test_tasks_without_goals_are_left_out_with_a_word(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = NQMConfig(optimizer="momentum", batch_size=64, learning_rate=0.1, coefficient=0.5, updates=50)
    with Store(tmp_path / "other").open_run(other, {}) as writer:
        for record in records(other):
            writer.append(record)
        writer.seal("done")
    page = tmp_path / "page.html"
    folders = [str(swept), str(tmp_path / "other")]
    assert main(["report", *folders, "--out", str(page), "--tables", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    assert "1 tasks without goals are left out, the first because NQM momentum has no" in " ".join(printed.err.split())
    found = json.loads(printed.out)
    assert found["page"] == str(page)
    assert [row["domain"] for row in found["agreement"]] == ["All domains", "Noisy quadratic model"]
    assert found["agreement"][0]["tasks"] == 2
    text = page.read_text()
    assert "<h2>Noisy quadratic model</h2>" in text
    assert "Not on this page, as they have no goals: 1 task</summary>" in text
    assert "<h3>NQM momentum</h3>" not in text
    assert (tmp_path / "fits.parquet").exists()
    assert main(["report", str(tmp_path / "other"), "--out", str(page)]) == 2


def test_a_missing_folder_is_left_out_with_a_word(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, nowhere = tmp_path / "page.html", str(tmp_path / "nowhere")
    assert main(["report", str(swept), nowhere, "--out", str(page)]) == 0
    assert f"left out: no such folder: {nowhere}" in capsys.readouterr().err
    assert f"Left out: no such folder: {nowhere}" in page.read_text()
    page.unlink()
    assert main(["report", nowhere, nowhere + "-either", "--out", str(page)]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "no such folder" in printed.err
    assert not page.exists()


def test_curves_of_very_many_runs_are_drawn_when_asked_for(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rl_scaling.cli.report.MOST_RUNS_WITH_CURVES", 3)
    page = tmp_path / "page.html"
    assert main(["report", str(swept), "--out", str(page)]) == 0
    assert "--curves draws them" in capsys.readouterr().err
    text = page.read_text()
    assert "Learning curves: loss" not in text
    assert "No learning curves: there are too many runs for one page." in text
    assert main(["report", str(swept), "--curves", "--out", str(page)]) == 0
    assert "Learning curves: loss" in page.read_text()


def test_report_is_written(pong_sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "report", pong_sweep, "--out", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert code == 0
    assert out.strip() == str(tmp_path / "page.html")
    assert "Pong" in (tmp_path / "page.html").read_text()
    assert {path.suffix for path in (tmp_path / "figures").rglob("*.*")} == {".svg", ".pdf", ".png"}


def test_the_page_takes_the_choices_of_fit_and_says_so(
    pong_sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run(capsys, "report", pong_sweep, "--out", page, "--horizon", 7, "--confidence", 0.8)[0] == 0
    text = page.read_text()
    assert "--horizon 7 --confidence 0.8" in text
    assert "averaged over 7 finished episodes" in text
    assert "80\N{NO-BREAK SPACE}% interval" in text
    assert run(capsys, "report", pong_sweep, "--out", page, "--confidence", 2)[0] == 2
