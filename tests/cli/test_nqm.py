"""The commands of the noisy quadratic model as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from rl_scaling import cli
from rl_scaling.cli.nqm import _optimizers

SWEEP = ["sweep", "nqm", "--optimizers", "sgd", "--batch-sizes", "16", "256", "4096", "65536", "--rates", "3"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's sweep, by the real command."""
    folder = tmp_path_factory.mktemp("cli") / "nqm"
    assert cli.main([*SWEEP, "--targets", "0.1", "0.03", "--out", str(folder)]) == 0
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_steps_with_the_published_choices(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["nqm", "steps", "--optimizer", "sgd", "--power", 0, "--batch-sizes", 4, 1048576, "--published", "--json"]
    code, out, err = run(capsys, *words)
    rows = json.loads(out)
    assert (code, err) == (0, "")
    names = ["batch_size", "steps", "learning_rate", "coefficient", "averaging", "status"]
    assert [list(row) for row in rows] == [names] * 2
    assert [row["steps"] for row in rows] == [1_507_367, 7_268]


def test_the_critical_batch_size_by_three_definitions(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "nqm", "critical", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["status"] == "ok"
    assert 600 < found["critical_batch"] < 1_100
    assert 500 < found["twice_the_steps"] < 900
    assert 200 < found["twenty_percent"] < 500


def test_the_sweep_goes_through_store_fit_and_report(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "fit", swept, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(row["task"], row["goal"], row["unit"], row["quantity"]) for row in rows] == [
        ("NQM sgd", 0.1, "examples", "loss"),
        ("NQM sgd", 0.03, "examples", "loss"),
    ]
    assert all(row["status"] == "ok" for row in rows)
    assert rows[0]["critical_batch"] < rows[1]["critical_batch"], "harder targets bear larger batches"
    assert run(capsys, "report", swept, "--out", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert "To reach a loss of 0.03, the critical batch size is" in page
    assert "examples per update" in page
    assert "frames" not in page.partition('id="part-1"')[2].split("<script")[0], "the domain's own part"
    assert "of the easiest" not in page


def test_status_and_a_second_call_run_nothing_twice(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in swept.glob("*/records.parquet")}
    code, _, err = run(capsys, *SWEEP, "--targets", "0.1", "0.03", "--out", swept)
    assert code == 0
    assert ", 0 to do" in err
    assert {path: path.stat().st_mtime_ns for path in swept.glob("*/records.parquet")} == stamps
    code, out, _ = run(capsys, "status", swept, "--json")
    rows = json.loads(out)
    assert len(rows) == len(stamps)
    assert all(0 <= row["examples"] <= row["examples_planned"] for row in rows)


@pytest.mark.slow
def test_the_model_is_fitted_to_its_own_sweep(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "nqm", "fit", swept, "--goal", 0.03, "--target", 0.03, "--at", 4, "1e6")
    assert code == 0
    assert "spectrum exponent: " in out
    assert "fewest steps by this model: ema at 4" in out


def test_the_model_is_fitted_to_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "steps.csv"
    path.write_text("batch_size,steps\n4,1501267\n64,95633\n1024,10600\n16384,7381\n262144,6997\n")
    code, out, _ = run(capsys, "nqm", "fit", path, "--at", 4, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["spectrum_exponent"]["value"] == pytest.approx(1.0, abs=0.05)
    assert found["noise_scale"]["low"] < 1 < found["noise_scale"]["high"]
    assert set(found) == {"spectrum_exponent", "noise_exponent", "noise_scale", "scatter", "predicted", "advice"}


@pytest.mark.slow
def test_exactness_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "nqm", "check", "--cases", 2, "--json")
    assert code == 0
    assert {row["unit"] for row in json.loads(out)} == {"relative", "standard errors"}


def test_the_default_spectrum_is_not_floored(capsys: pytest.CaptureFixture[str]) -> None:
    """Groups that keep trace and count: all 10,000 eigenvalues give 1,507,530. --published floors."""
    for more in ([], ["--dimension", 10_000]):
        code, out, _ = run(capsys, "nqm", "steps", "--batch-sizes", 4, "--json", *more)
        assert (code, [row["steps"] for row in json.loads(out)]) == (0, [1_506_842])


def test_every_row_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["nqm", "steps", "--batch-sizes", 4, "--json", "--learning-rates"]
    for rate, status in ((2.5, "diverges"), (1.0, "unreachable: the target 0.01 is below the lowest steady state")):
        code, out, _ = run(capsys, *words, rate)
        (row,) = json.loads(out)
        assert code == 0
        assert row["status"].startswith(status)
        assert row["steps"] is row["learning_rate"] is None


def test_averages_of_momentum_beat_both_of_their_parts(capsys: pytest.CaptureFixture[str]) -> None:
    steps = {}
    for name in ("momentum", "ema", "momentum-ema"):
        words = [
            "nqm",
            "steps",
            "--optimizer",
            name,
            "--dimension",
            200,
            "--batch-sizes",
            64,
            "--target",
            0.1,
            "--json",
        ]
        steps[name] = json.loads(run(capsys, *words)[1])[0]["steps"]
    assert steps["momentum-ema"] < 0.9 * min(steps["momentum"], steps["ema"])


@pytest.mark.slow
def test_every_figure_is_drawn_with_its_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["nqm", "figures", "--out", tmp_path / "nqm.html", "--figures", tmp_path / "figures", "--json"]
    code, out, _ = run(capsys, *words)
    checks = json.loads(out)
    assert code == 0
    figures = ["1", "2", "3a", "3b", "3c", "4", "11", "13", "14", "15"]
    assert list(dict.fromkeys(check["figure"] for check in checks)) == [f"Figure {name}" for name in figures]
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {f"nqm-figure-{name}" for name in figures}
    failed = [check["claim"] for check in checks if not check["holds"]]
    assert failed == ["momentum changes nothing at small batches", "it is never worse than SGD"], "both are in docs/"
    assert "What it should show" in (tmp_path / "nqm.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("nqm steps --power 2", 2, "power is 2.0: give a number from 0 to 1"),
        ("nqm steps --target 9", 2, "target is 9.0: give a risk between 0 and"),
        ("nqm steps --batch-sizes 0", 2, "batch sizes must be positive"),
        ("nqm steps --batch-sizes", 2, "give at least one batch size"),
        ("nqm steps --dimension 0", 2, "dimensions is 0: give a whole number"),
        ("nqm steps --exponent nan", 2, "must be finite"),
        ("nqm steps --spectrum nan.txt", 2, "nan.txt: eigenvalues hold 1 numbers that are NaN or infinite"),
        (
            "nqm steps --spectrum empty.txt",
            2,
            "empty.txt: eigenvalues have the shape (0,): give a list of at least one",
        ),
        ("nqm steps --spectrum negative.txt", 2, "negative.txt: eigenvalues must be positive: -0.5 is not"),
        ("nqm steps --spectrum none.txt", 2, "none.txt not found"),
        ("nqm steps --coefficients 0.9", 2, "--coefficients goes with --learning-rates"),
        ("nqm steps --optimizer momentum --learning-rates 1", 2, "momentum needs --coefficients"),
        ("nqm steps --optimizer momentum-ema --published", 2, "no published grid for momentum-ema"),
        ("nqm critical --batch-sizes 4 8", 2, "a fit needs 3"),
        ("nqm critical --batch-sizes 4 4 4", 2, "a fit needs 3 different batch sizes that reach the target, not 1"),
        ("nqm fit steps.csv --target 9", 2, "target is 9.0: give a risk between 0 and"),
        ("nqm fit nowhere", 1, "no such folder: nowhere"),
        ("sweep nqm --batch-sizes", 2, "give at least one of --optimizers, --batch-sizes"),
        ("sweep nqm --power 2", 2, "power is 2.0: give a number from 0 to 1"),
        ("sweep nqm --targets 9", 2, "target is 9.0: give a risk between 0 and"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    words: str,
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("steps.csv").write_text("batch_size,steps\n4,90\n16,50\n64,40\n256,35\n")
    for name, text in (("nan", "1 0.5 nan"), ("empty", ""), ("negative", "1 -0.5")):
        Path(f"{name}.txt").write_text(text)
    found, out, err = run(capsys, *words.split())
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_store_of_another_domain_is_left_alone(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "sweep atari --game Pong --network small --num-envs 2 --frames 100 --goals -20 --out"
    code, _, err = run(capsys, *words.split(), swept)
    assert code == 2
    assert "holds runs of NQM: give another folder (--out)" in err


def test_a_fit_takes_only_sgd_and_its_average_and_sizes_that_are_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["sweep", "nqm", "--optimizers", "momentum", "--batch-sizes", "4", "64", "1024", "--targets", "0.03"]
    assert cli.main([*sweep, "--out", str(tmp_path)]) == 0
    assert cli.main(["nqm", "fit", str(tmp_path)]) == 2
    assert "no goal was reached by SGD or its average" in capsys.readouterr().err
    assert cli.main(["nqm", "fit", str(tmp_path), "--at", "0"]) == 2
    assert "no batch size" in capsys.readouterr().err


def test_of_trained_networks_plain_sgd_alone_is_fitted() -> None:
    """An average of trained networks has a given coefficient, Adam is no optimiser of the model."""
    columns = ["task", "optimizer.name", "optimizer.ema"]
    rows = [("d sgd", "sgd", 0.0), ("d sgd+ema", "sgd", 0.95), ("d adam", "adam", 0.0), ("d momentum", "momentum", 0.0)]
    assert _optimizers(pd.DataFrame(rows, columns=pd.Index(columns))) == {"d sgd": ("sgd", 0.0)}
    assert _optimizers(pd.DataFrame({"task": ["Pong"]})) == {"Pong": ("sgd", 0.0)}
