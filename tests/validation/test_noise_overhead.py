"""The benchmark of what measuring costs runs, and its transformer is one that can be measured."""

from __future__ import annotations

import json

import pytest
import torch

from rl_scaling import cli
from rl_scaling.noise import GradientNoise
from rl_scaling.validation import noise_overhead
from rl_scaling.validation.noise_overhead import Transformer
from tests.noise.torch.reference import losses, naive_meter, same


@pytest.mark.parametrize("workload", ["mlp", pytest.param("a2c-16", marks=pytest.mark.slow)])
def test_prints_every_cadence_with_its_spread(
    workload: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noise_overhead, "EVERY", (0, 3, 1))  # blocks of 3 steps and not of 20
    code = cli.main(["bench", "noise", "--workloads", workload, "--rounds", "2", "--threads", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [(row["workload"], row["every"], row["rounds"]) for row in rows] == [(workload, e, 2) for e in (3, 1)]
    assert all(row["low_percent"] <= row["percent"] <= row["high_percent"] for row in rows)
    assert all(row["step_milliseconds"] > 0 for row in rows)


def test_the_transformer_is_measured_rightly() -> None:
    torch.manual_seed(0)
    model = Transformer(vocabulary=11, length=5, width=8).double()
    batches = [(torch.randint(11, (6, 5)), torch.randn(6, 5, 11).double()) for _ in range(4)]
    noise = GradientNoise(model, groups=3, every=1)
    for inputs, targets in batches:
        with noise.measure(6):
            losses(model, inputs, targets).mean().backward()
    groups = [range(2), range(2, 4), range(4, 6)]
    assert same(noise.estimate(), naive_meter(model, batches, groups).estimate())
