"""The test of the families: which sweeps it runs, and whether it tells curves that coincide from those that do not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_scaling.agents.config import PPOConfig
from rl_scaling.config import to_dict
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.domains.rl.task import RLTask, learning_rates_of
from rl_scaling.envs.config import GymnasiumConfig
from tests.analysis.made_runs import made_run
from tests.scripts.loading import load_script

SIZES, SEEDS = (64, 256, 1024), range(4)


@pytest.fixture
def script() -> Any:
    return load_script("batch_size_invariance")


def sweep(gain: dict[int, float]) -> pd.DataFrame:
    """Runs whose scores rise to ten times a factor of the batch size, with noise of the seed and of every row."""
    random, runs = np.random.default_rng(3), []
    for size in SIZES:
        for seed in SEEDS:
            examples = np.linspace(0, 10_000, 51)[1:]
            scores = (gain[size] + 0.1 * random.normal()) * examples / 1_000 + 0.3 * random.normal(size=50)
            columns = {"updates": examples / size, "examples": examples, "score": scores, "episodes": 5.0}
            runs.append(made_run(size, 1e-3, seed, **columns))
    return pd.concat(runs, ignore_index=True)


def test_curves_are_means_over_the_games_of_each_tenth(script: Any) -> None:
    columns = {"examples": [500.0, 1_000.0, 5_000.0, 10_000.0], "score": [1.0, 3.0, 5.0, 7.0], "episodes": [1, 3, 2, 4]}
    table = script.curves(made_run(64, 1e-3, 0, updates=np.arange(1.0, 5.0), **columns))
    (row,) = table.to_dict("records")
    assert [row[part] for part in (0, 4, 9)] == [pytest.approx(2.5), 5.0, 7.0]
    assert np.isnan([row[part] for part in (1, 2, 3, 5, 6, 7, 8)]).all()


def test_curves_that_coincide_are_told_from_those_that_do_not(script: Any) -> None:
    alike = script.as_markdown(script.curves(sweep(dict.fromkeys(SIZES, 1.0))))
    unlike = script.as_markdown(script.curves(sweep(dict(zip(SIZES, (1.0, 0.8, 0.5), strict=True)))))
    shares = [float(text.rsplit("p = ", 1)[1]) for text in (alike, unlike)]
    assert shares[0] > 0.1
    assert shares[1] < 0.01
    assert "| Made a2c | 64 | 0.001 | 4 | " in alike


def test_of_a_sweep_the_rates_of_the_rule_are_compared(script: Any) -> None:
    """A grid of five rates for each number of environments: the one in the middle of each, wherever it was extended."""
    for scaling in ("count", "minibatch", "ewma"):
        base = RunConfig(
            environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=4),
            agent=PPOConfig(network="mlp", scaling=scaling),
        )
        sizes = tuple(base.agent.batch_size(count) for count in (4, 16, 64))
        task = RLTask(base=base, batch_sizes=sizes, learning_rates=learning_rates_of(base.agent, count=5))
        grids = [[task.config(size, rate, 0) for rate in task.learning_rates.grid(size)] for size in sizes]
        infos = [SimpleNamespace(run_id=run.run_id, config=to_dict(run)) for grid in grids for run in grid]
        assert script.by_rule(infos, None) == [grid[2].run_id for grid in grids]
        assert script.by_rule(infos, 2 * base.agent.at_defaults.learning_rate) == [grid[3].run_id for grid in grids]


@pytest.mark.statistical
def test_the_share_is_a_p_value(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 sets of runs that are alike about one in ten is called unlike at 0.1 (4 to 17 %: beyond 3 sigma)."""
    monkeypatch.setattr(script, "DEALS", 99)
    random = np.random.default_rng(0)
    sizes = np.repeat(SIZES, 4).astype(float)
    called, by_chance = 0, []
    for _ in range(200):
        scores = 5 + random.normal(size=(12, 1)) + 0.1 * random.normal(size=(12, 4))
        found, expected, share = script.apart(scores, sizes)
        called += share <= 0.1
        by_chance.append((found**2, expected**2))
    assert 0.04 < called / 200 < 0.17
    found, expected = np.mean(by_chance, axis=0)
    assert found == pytest.approx(expected, rel=0.2)


def test_every_family_is_a_sweep_by_its_own_rule_into_one_store(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(script, "rl_scaling", lambda words: ran.append(words) or 0)
    made = sweep(dict.fromkeys(SIZES, 1.0))
    monkeypatch.setattr(script, "load_runs", lambda *_, **__: made)
    monkeypatch.setattr(script, "list_runs", lambda *_: [])
    monkeypatch.setattr(script, "by_rule", lambda *_: made["run_id"].tolist())
    assert script.main(["--game", "pong", "--seeds", "0", "1", "--out", str(tmp_path), "--", "--network", "small"]) == 0
    assert [words[words.index("--scaling") + 1] for words in ran] == ["count", "minibatch", "ewma"]
    assert all(words[-2:] == ["--network", "small"] for words in ran)
    assert {words[words.index("--out") + 1] for words in ran} == {str(tmp_path)}
    assert "Made a2c: apart " in capsys.readouterr().out
    assert script.main(["--read", str(tmp_path)]) == 0
    assert len(ran) == 3
    assert script.main(["--game", "pnog"]) == 2
