"""The command line as a user types it: one line for bad input, and no more loaded than is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

from rl_scaling import cli
from rl_scaling.cli.verbs import VERBS
from tests.cli.commands import run


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("sweep atari --game Braekout", 2, "no game 'Braekout'; nearest: Breakout"),
        ("sweep atari --game Freeway", 2, "Freeway has no goals of its own: name scores to reach"),
        ("sweep atari --game Pong --num-envs 1", 2, "one environment gives no groups to compare"),
        ("sweep atari --game Pong --learning-rates 1e-3 -1e-3", 2, "learning rate -0.001 in the grid"),
        ("sweep atari --game Pong --frames 1.5", 2, "'1.5' is not a whole number"),
        ("sweep atari --game Pong --epochs 2", 2, "--epochs is for PPO: add --algorithm ppo"),
        ("sweep atari --game Pong --reference-rate 0", 2, "learning rate 0.0 in the grid: give positive numbers"),
        ("sweep atari --game Pong --algorithm ppo --num-envs 6 --minibatch-of environments", 2, "minibatches 3 or 6"),
        ("sweep atari --game Pong --algorithm ppo --no-rmsprop-epsilon-inside-root", 2, "is for A2C"),
        ("train ppo --game Pong --num-envs 5 --rollout-steps 3", 2, "give minibatches 3 or 5, or num_envs 4 or 8"),
        ("train a2c", 2, "name one environment"),
        ("train a2c --game Pong --device cuda:0 --frames 100", 2, "no GPU is to be seen"),
        ("train a2c --env-id NoSuchThing-v0 --network mlp", 2, "no environment 'NoSuchThing-v0'"),
        ("train a2c --env-id CartPole-v1 --network nature --frames 100", 2, "'nature' needs images of 36 x 36 pixels"),
        ("train a2c --env-id nowhere:CartPole-v1", 2, "there is no module 'nowhere'"),
        ("sweep rl --env CartPole-v1 --goals 9 --network small", 2, "'small' needs images of 20 x 20 pixels or more"),
        ("train a2c --game Pong --learning-rate -1", 2, "learning_rate is -1.0: give a positive number"),
        ("train a2c --game Pong --device foo", 2, "there is no device 'foo'"),
        ("train a2c --game Pong --threads -2", 2, "--threads is -2: give 0 or more"),
        ("sweep atari --game Pong --goals nan", 2, "goal nan is not a score"),
        ("sweep atari --game Pong --workers -1", 2, "--workers is -1"),
        ("sweep atari --game Pong --minutes nan", 2, "--minutes is nan"),
        ("sweep atari --game Pong --device cuda", 2, "no GPU is to be seen"),
        ("sweep atari --game Pong --num-envs 200000 --learning-rates 1e-3", 2, "environments need"),
        ("train a2c --game Pong --num-envs 200000 --frames 100", 2, "a run of 200,000 environments needs about"),
        ("train a2c --env-id CartPole-v1 --network mlp --frame-skip 2", 2, "--frame-skip is for Atari"),
        ("measure --game Pong --num-envs 200000", 2, "a run of 200,000 environments needs about"),
        ("measure --env-id CartPole-v1 --network nature", 2, "network 'nature' needs images of 36 x 36 pixels or more"),
        (
            "train a2c --game minatar/pong",
            2,
            "no game 'minatar/pong'; some there are: minatar/asterix, minatar/breakout",
        ),
        ("train a2c --game minatar/breakout --network small", 2, "network 'small' does not fit minatar/breakout"),
        ("train a2c --game minatar/breakout --frame-skip 2", 2, "--frame-skip is for Atari: leave it out"),
        ("train a2c --game Pong --no-difficulty-ramping", 2, "--difficulty-ramping is for MinAtar: leave it out"),
        ("sweep rl --game minatar/braekout", 2, "no game 'minatar/braekout'; nearest: minatar/breakout"),
        (
            "sweep rl --game Pong minatar/asterix --max-episode-steps 9",
            2,
            "--max-episode-steps is for MinAtar: leave it",
        ),
        ("sweep rl --game minatar/all --network nature", 2, "network 'nature' does not fit minatar/asterix"),
        ("bench atari --game minatar/breakout", 2, "minatar/breakout is a game of MinAtar: give one of Atari"),
        ("bench noise --game minatar/breakout", 2, "minatar/breakout is a game of MinAtar: give one of Atari"),
        ("temperature --factor 1", 2, "factor is 1.0: give a number above 1"),
        ("temperature --batch-size 60", 2, "batch size 60 does not divide into 8 groups"),
        ("temperature --learning-rate nan", 2, "learning_rate is nan"),
        ("temperature --label-noise 2", 2, "give a label noise between 0 and 1"),
        ("temperature --phase-updates 2", 2, "give 8 or more"),
        ("fit nowhere", 1, "no such folder: nowhere"),
        ("report .", 1, "no recorded rows in ."),
        ("status .", 1, "no runs in ."),
        ("fit", 2, "name a folder"),
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
    found, out, err = run(capsys, *words.split())
    assert found == code
    assert message in err
    assert out == ""
    assert len([line for line in err.splitlines() if line.startswith("rl-scaling:")]) == 1
    assert "Traceback" not in err
    assert list(tmp_path.rglob("config.json")) == [], "what cannot be run must leave nothing behind"
    assert not (tmp_path / "runs").exists()


def test_unknown_options_exit_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["sweep", "atari", "--gaem", "Pong"])
    assert caught.value.code == 2


def test_help_is_quick_and_needs_no_torch() -> None:
    script = "import sys, rl_scaling.cli; sys.exit('torch' in sys.modules or 'stable_baselines3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_of_itself_what_the_list_of_verbs_says(verb: str) -> None:
    place, line = VERBS[verb]
    said = resolve_name(f"rl_scaling.cli.{place}").__doc__.split("\n\n")[0]
    assert " ".join(said.split()) == line
