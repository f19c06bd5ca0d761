"""`rl-scaling translate`: what it reads, what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_scaling.agents.config import PPOConfig
from rl_scaling.analysis import fit_runs
from rl_scaling.config import to_dict
from rl_scaling.domains.rl.config import RunConfig, run_config_from_dict
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.store import load_runs
from tests.cli.commands import run

RESULTS = Path(__file__).parent.parent.parent / "results"
# Breakout with A2C, 24 environments, rate 0.00119.
RUN = RESULTS / "breakout-a2c" / "83b0a70d0845"
CONFIG = RunConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=16),
    agent=PPOConfig(network="mlp", scaling="ewma", learning_rate=3e-4),
    frames=10_000,
)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(to_dict(CONFIG)))
    return path


def test_a_config_is_translated_and_what_comes_out_is_a_config(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "translate", "--from-envs", 16, "--to-envs", 64, config_file, "--json")
    assert code == 0
    said = json.loads(out)
    after = run_config_from_dict(said["config"])
    assert (after.environment.num_envs, after.learning_rate, after.run_id) == (64, 6e-4, said["run_id"])
    assert said["options"] == "--num-envs 64 --learning-rate 0.0006"
    assert said["measured"] == []
    config_file.write_text(json.dumps(said["config"]))
    code, out, _ = run(capsys, "translate", "--to-envs", 16, config_file, "--json")
    assert run_config_from_dict(json.loads(out)["config"]) == CONFIG
    code, out, _ = run(capsys, "translate", "--to-envs", 16, config_file)
    assert "proximal_decay in force" in out
    assert "nothing was measured of this task" in out


def test_a_run_of_a_sweep_stands_beside_what_the_sweep_found(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "translate", "--to-envs", 72, RUN.parent / "83b0", "--goals", 3, "--json")
    assert code == 0
    said = json.loads(out)
    (row,) = said["measured"]
    *_, rate = said["options"].split()
    assert float(rate) == said["config"]["agent"]["learning_rate"], "the options make the run whose id is told"
    fronts = fit_runs(load_runs(RUN.parent), [3.0], horizon=50).fronts.set_index("batch_size")
    for when, size in (("before", 120), ("after", 360)):
        assert row[f"rate_{when}"] == fronts["learning_rate"][size]
        assert row[f"frames_{when}"] == fronts["examples"][size]
    code, out, _ = run(capsys, "translate", "--to-envs", 72, RUN, "--goals", 3)
    assert "goal 3: 72 environments, batches of 360 frames, are above the critical batch size 184" in out
    assert "best learning rate" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([RUN, "--from-envs", 16], "is for 24 environments, not 16: give --from-envs 24, or leave it out"),
        ([RUN, "--algorithm", "ppo"], "is of a2c, and no rule makes settings of ppo from them"),
        ([RESULTS / "nqm" / "002e"], "is a run of NQM momentum, which has no environments"),
        ([RESULTS / "nqm" / "0"], "runs of"),
        ([RESULTS / "noise-frozen" / "c0fb"], "measured with the weights kept: give the run that it is of"),
        (["nothing"], "names no run: give a run's folder"),
        ([RESULTS / "breakout-a2c" / "zzz"], "names no run: give a run's folder"),
        ([RESULTS / "breakout-a2c"], "names no run: give a run's folder"),
        ([RESULTS / "breakout-a2c" / "sweep.json"], "not a run's config: no field 'environment'"),
        ([RESULTS.parent / "README.md"], "README.md is not JSON"),
    ],
)
def test_what_is_no_such_run_is_refused_in_one_line(
    words: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "translate", *words, "--to-envs", 64)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
