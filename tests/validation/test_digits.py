from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from rl_scaling.validation.digits import GroupedSGD, load_digits, small_mlp


def test_digits_are_whole_and_standardised() -> None:
    images, classes = load_digits()
    assert images.shape == (1797, 64)
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-5)
    assert classes.unique().tolist() == list(range(10))


def test_the_seed_makes_the_network_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = small_mlp(4, 0), small_mlp(4, 0), small_mlp(4, 1)
    assert torch.equal(torch.get_rng_state(), state)
    pixels = torch.ones(1, 64)
    assert torch.equal(first(pixels), again(pixels))
    assert not torch.equal(first(pixels), other(pixels))


def test_training_learns() -> None:
    data, model = load_digits(), small_mlp(16, 0)
    before = float(cross_entropy(model(data[0]), data[1]).detach())
    GroupedSGD(model, data, torch.Generator().manual_seed(1)).train(200)
    assert float(cross_entropy(model(data[0]), data[1]).detach()) < before / 4
