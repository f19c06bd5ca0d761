from __future__ import annotations

import pytest

from rl_scaling.domains.supervised.batched import measure_gain, speedup, together_pays
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.models import make_model


def test_both_ways_are_timed_and_models_left_alone() -> None:
    models = [make_model("mlp", (1, 8, 8), 10, seed=seed, hidden=(8,)) for seed in range(16)]
    before = [parameter.detach().clone() for parameter in models[0].parameters()]
    found = measure_gain(models, load_dataset("digits"), 1, rounds=3, seconds=0.02)
    assert (found.batch_size, found.trials) == (1, 16)
    assert found.low <= found.ratio <= found.high
    assert found.ratio > 1  # sixteen tiny networks on single images: the one case that needs no stop-watch
    assert all(bool((a == b).all()) for a, b in zip(before, models[0].parameters(), strict=True))


def test_the_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    data, options = load_dataset("digits"), (("hidden", (8,)),)
    first = together_pays("mlp", options, data, 1, 16)
    monkeypatch.setattr(speedup, "measure_gain", None)
    assert together_pays("mlp", options, data, 1, 16) == first
    assert not together_pays("mlp", options, data, 1, 1)
