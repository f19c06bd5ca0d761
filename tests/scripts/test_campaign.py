"""Every line of the campaign is a command that the real command line takes; the script resumes, goes on and stops."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from rl_scaling import cli
from rl_scaling.agents.config import PPOConfig
from rl_scaling.cli.export import Export
from rl_scaling.cli.sweep import SweepOptions
from rl_scaling.cli.train import Training
from tests.scripts.loading import SCRIPTS

SCRIPT = str(SCRIPTS / "campaign.sh")
# Stands in for `rl-scaling`: says what it was given; the word "wait" makes it wait for SIGTERM, which it counts.
STAND_IN = """#!/usr/bin/env bash
echo "asked: $*"
[[ $1 == status ]] && exec cat "$2/status.json"
[[ $* == *pong-ppo* ]] && exit 3
[[ $* != *"$WAIT_FOR"* || -z $WAIT_FOR ]] && exit 0
terms=0
trap 'terms=$((terms + 1))' TERM
echo waiting > "$STARTED"
while ((terms == 0)); do sleep 0.05; done
sleep 0.2
echo "saved after $terms"
exit 1
"""


def campaign(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    told = ["bash", SCRIPT, *map(str, words)]
    return subprocess.run(told, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment whose `rl-scaling` is a script of ours."""
    command = tmp_path / "bin" / "rl-scaling"
    command.parent.mkdir()
    command.write_text(STAND_IN)
    command.chmod(0o755)
    return {"PATH": f"{command.parent}:{os.environ['PATH']}", "WAIT_FOR": "", "STARTED": str(tmp_path / "started")}


COMMANDS = campaign("--commands").stdout.splitlines()


def test_the_campaign_has_what_is_to_be_shipped() -> None:
    assert len(COMMANDS) == len(set(COMMANDS)) >= 15
    folders = [line.split("--out ")[1] for line in COMMANDS if "--out " in line]
    assert len(folders) == len(set(folders))


@pytest.mark.parametrize("line", COMMANDS, ids=[line.split()[-1] for line in COMMANDS])
def test_every_line_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as what would be trained; nothing is."""
    asked: list[Any] = []

    def make(kind: str) -> Any:
        return lambda command: asked.append(getattr(command, kind)()) or 0

    monkeypatch.setattr(SweepOptions, "run", make("plans"))
    monkeypatch.setattr(Training, "run", make("config"))
    monkeypatch.setattr(Export, "run", lambda _: asked.append("exported") or 0)
    program, *words = shlex.split(line)
    assert program == "rl-scaling"
    if words[0] == "measure" or "--measure-at" in words:
        pytest.importorskip("rl_scaling.cli.measure")
        monkeypatch.setattr("rl_scaling.cli.measure.Measure.run", make("targets"))
    if "minatar" in line:
        pytest.importorskip("rl_scaling.envs.minatar")
    if "--scaling" in words and not hasattr(PPOConfig, "scaling"):
        pytest.skip("PPO has one family")
    assert cli.main(words) == 0
    assert asked


def test_one_step_after_the_other_and_a_failure_stops_none(tmp_path: Path, stand_in: dict[str, str]) -> None:
    folder = tmp_path / "runs"
    done = campaign(f"{folder}/", "pong", "published", **stand_in, WORKERS="3")
    assert done.returncode == 1
    assert "not finished: pong-ppo" in done.stderr
    assert (folder / "logs" / "pong-ppo.log").read_text().splitlines()[-1] == "exit 3"
    said = (folder / "logs" / "published-breakout-ppo.log").read_text().splitlines()
    assert "--stop-at 1e6" in said[0]
    assert said[0].endswith("--threads 3")
    assert said[1] == "exit 0"
    assert sorted(log.stem for log in (folder / "logs").iterdir()) == [
        *("pong-ppo", "published-breakout-a2c", "published-breakout-ppo", "published-curves", "published-pong-ppo"),
    ]
    again = campaign(f"{folder}/", "published-curves", **stand_in)
    assert again.returncode == 0
    assert (folder / "logs" / "published-curves.log").read_text().count("exit 0") == 2


def test_the_list_says_how_far_each_step_is(tmp_path: Path, stand_in: dict[str, str]) -> None:
    for store, statuses in (("pong-ppo", ["done", "running", "waiting"]), ("breakout-ppo", ["done", "stopped"])):
        (tmp_path / store).mkdir()
        rows = ",".join(f'\n{{\n"status": "{status}"\n}}' for status in statuses)
        (tmp_path / store / "status.json").write_text(f"[{rows}]")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "breakout-ppo.log").write_text("...\nexit 0\n")
    (tmp_path / "logs" / "qbert-a2c.log").write_text("...\nexit 2\n")
    listed = campaign("--list", f"{tmp_path}/", **stand_in)
    assert listed.returncode == 0
    states = dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    assert len(states) == len(COMMANDS)
    assert states["pong-ppo"] == "1 of 3 trials"
    assert states["breakout-ppo"] == "done"
    assert states["qbert-a2c"] == "ended with exit 2"
    assert states["breakout-a2c"] == "waiting"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_once_and_ends_the_campaign(
    tmp_path: Path, stand_in: dict[str, str], number: int
) -> None:
    """As Ctrl-C and `timeout` send it: to the whole process group."""
    environment = os.environ | stand_in | {"WAIT_FOR": "breakout-a2c"}
    words = ["bash", SCRIPT, f"{tmp_path}/runs/", "published"]
    with subprocess.Popen(words, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 20
        while not Path(stand_in["STARTED"]).exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(process.pid, number)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "stopped: the same command resumes" in said
    log = (tmp_path / "runs" / "logs" / "published-breakout-a2c.log").read_text()
    assert log.endswith("saved after 1\nexit 1\n")
    assert len(list((tmp_path / "runs" / "logs").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--all"], "--all is no option"), (["chess"], "no step begins with chess")],
)
def test_bad_input_is_one_line(words: list[str], said: str) -> None:
    done = campaign(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
