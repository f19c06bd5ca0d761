"""A batch of examples that follows the noise scale: the loop, its rows, and the fit beside fixed batches."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from rl_scaling.domains.supervised.measured import RunNoise

from rl_scaling.cli import main
from rl_scaling.config import ConfigError, to_dict
from rl_scaling.domains.supervised.config import (
    AdaptiveExamplesConfig,
    OptimizerConfig,
    ScheduleConfig,
    SupervisedConfig,
)
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.runs import run_alone, run_together, trains_together
from rl_scaling.records import LossRecord
from rl_scaling.store import load_runs

FIXED = SupervisedConfig(optimizer=OptimizerConfig(learning_rate=0.1), batch_size=8, updates=200)
RULE = AdaptiveExamplesConfig(exchange_rate=50, window_measurements=20, change_every_updates=10)
ADAPTIVE = dataclasses.replace(FIXED, adaptive=RULE)


def rows(config: SupervisedConfig, *, noise_every_updates: int = 0) -> list[LossRecord]:
    found = run_alone(config, load_dataset("digits"), noise_every_updates=noise_every_updates)
    return [row for _, row in found if isinstance(row, LossRecord)]


def test_the_batch_follows_and_the_learning_rate_with_it() -> None:
    found = rows(ADAPTIVE)
    sizes = [row.current_batch_size for row in found[1:]]
    assert sizes[0] == 8
    assert max(sizes) > 16
    assert all(8 <= size <= 1024 for size in sizes)
    for row in found[1:]:  # A.3 with B* = 64 and alpha = 1
        assert row.current_learning_rate == pytest.approx(0.1 * (1 + 64 / 8) / (1 + 64 / row.current_batch_size))
    assert 1600 <= found[-1].examples < 1600 + sizes[-1]
    assert found[-1].updates < 200
    assert [row.validation_loss for row in rows(ADAPTIVE)] == [row.validation_loss for row in found]


def test_a_batch_that_may_not_change_trains_as_a_fixed_one() -> None:
    bound = dataclasses.replace(RULE, min_batch_size=8, max_batch_size=8)
    names = ("updates", "examples", "validation_loss", "current_learning_rate", "current_batch_size")
    for config in (dataclasses.replace(FIXED, adaptive=bound), FIXED):
        found = rows(config)
        expected = rows(FIXED, noise_every_updates=1)
        for name in names:
            values = [getattr(row, name) for row in found]
            assert values == pytest.approx([getattr(row, name) for row in expected], rel=1e-5, nan_ok=True), name


def test_the_noise_scale_is_that_of_the_batched_program() -> None:
    config = dataclasses.replace(FIXED, batch_size=64, updates=40)
    data = load_dataset("digits")
    together = [row for _, row in run_together([config], data, noise_every_updates=2) if isinstance(row, LossRecord)]
    alone = rows(config, noise_every_updates=2)
    assert sum(row.noise_measurements for row in alone) == 20
    for name in ("noise_measurements", "grad_sq_norm", "trace_cov"):
        expected = [getattr(row, name) for row in together]
        assert [getattr(row, name) for row in alone] == pytest.approx(expected, rel=1e-3, nan_ok=True), name
    last = next(row for row in reversed(alone) if row.noise_measurements)
    assert last.noise_scale_low > 0
    assert last.noise_scale_low <= last.noise_scale <= last.noise_scale_high


def test_its_task_is_that_of_fixed_batches_and_old_configs_stay_what_they_were() -> None:
    assert ADAPTIVE.task == FIXED.task == "digits-mlp sgd"
    assert ADAPTIVE.setting == "adaptive r=50 change_every_updates=10 window_measurements=20"
    assert "adaptive" not in to_dict(FIXED)
    assert ADAPTIVE.run_id != FIXED.run_id


def test_what_cannot_follow_is_refused() -> None:
    data = load_dataset("digits")
    assert not trains_together(ADAPTIVE, data)
    with pytest.raises(ConfigError, match="train an adaptive batch alone"):
        next(run_together([ADAPTIVE], data))
    with pytest.raises(ConfigError, match="constant schedule"):
        dataclasses.replace(ADAPTIVE, schedule=ScheduleConfig(warmup_updates=5))
    with pytest.raises(ConfigError, match="give 8 to 1024"):
        dataclasses.replace(ADAPTIVE, batch_size=4)
    with pytest.raises(ConfigError, match="one example for each group"):
        dataclasses.replace(RULE, min_batch_size=4)
    large = dataclasses.replace(RULE, max_batch_size=2000)
    with pytest.raises(ConfigError, match="a batch of 2,000 is larger than the 1,200"):
        rows(dataclasses.replace(ADAPTIVE, sampling="epoch", adaptive=large))
    with pytest.raises(ConfigError, match="cannot be measured while it trains"):
        rows(dataclasses.replace(ADAPTIVE, model="resnet32"))
    with pytest.raises(ConfigError, match="batch size of 2 or more"):
        rows(dataclasses.replace(FIXED, batch_size=1), noise_every_updates=5)


def test_a_batch_whose_gradient_is_not_finite_is_left_out() -> None:
    model = make_model("mlp", (1, 8, 8), 10, seed=0)
    noise = RunNoise(model, every=2)
    for scale in (1.0, 1.0, math.inf, 1.0):
        with noise.around(16):
            (model(torch.ones(16, 1, 8, 8)).square().mean() * scale).backward()
        noise.after_update()
        model.zero_grad()
    assert noise.columns().noise_measurements == 1
    assert noise.columns().noise_measurements == 0


def test_fit_puts_it_beside_the_front_of_fixed_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "supervised", "--threads", "1", "--out", str(tmp_path), "--optimizer", "sgd", "--epochs", "5"]
    train += ["--sampling", "replacement", "--noise-every-updates", "2"]
    for size, rate in ((8, 0.1), (32, 0.2), (128, 0.35)):
        assert main([*train, "--batch-size", str(size), "--learning-rate", str(rate)]) == 0
    adaptive = ["--batch-size", "8", "--learning-rate", "0.1", "--adaptive", "50", "--window-measurements", "20"]
    assert main([*train, *adaptive]) == 0
    assert "batch 8 at first, adaptive r=50" in capsys.readouterr().err
    assert set(load_runs(tmp_path)["task"]) == {"digits-mlp sgd"}
    assert main(["fit", str(tmp_path), "--goals", "1.0", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["task"] == "digits-mlp sgd"
    (beside,) = row["adaptive"]
    assert beside["setting"] == "adaptive r=50 measure_every_updates=2 window_measurements=20"
    assert beside["gamma_observed"] >= 0
    assert 8 < beside["batch_size"] < 1024


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--max-batch-size", "64"], "--max-batch-size is for an adaptive batch: give --adaptive R as well"),
        (["--adaptive", "-1"], "exchange_rate is -1.0"),
        (["--adaptive", "50", "--schedule", "halving"], "give a constant schedule"),
        (["--adaptive", "50", "--noise-every-updates", "-1"], "--noise-every-updates is -1"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "supervised", "--out", str(tmp_path), *options]) == 2
    assert complaint in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
