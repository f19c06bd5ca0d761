"""Small networks learn something in one epoch on real digits."""

from __future__ import annotations

import pytest
import torch

from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.models.small import Autoencoder
from tests.domains.supervised.models.reference import train_one_epoch


@pytest.mark.parametrize(("name", "share"), [("mlp", 0.6), ("cnn", 0.6), ("small-cnn", 0.95)])
def test_models_for_the_digits_learn_in_one_epoch(name: str, share: float) -> None:
    digits = load_dataset("digits")
    first, last = train_one_epoch(make_model(name, digits.image_shape, 10, seed=0), digits.train)
    assert last < share * first


def test_dropout_is_the_simple_cnns_of_shallue() -> None:
    digits = load_dataset("digits")
    model = make_model("cnn", digits.image_shape, 10, seed=0, dropout=0.4)
    inputs, _ = digits.train.batch(slice(0, 4))
    assert not torch.equal(model(inputs), model(inputs))
    assert torch.equal(model.eval()(inputs), model(inputs))
    first, last = train_one_epoch(model.train(), digits.train)
    assert last < 0.6 * first


def test_the_autoencoder_learns_in_one_epoch() -> None:
    digits = load_dataset("digits", scale="unit")
    model = make_model("autoencoder", digits.image_shape, 10, seed=0)
    assert isinstance(model, Autoencoder)
    inputs, _ = digits.validation.batch(slice(None))

    def squared_error() -> float:
        """Of an image, summed over its pixels."""
        return float((model(inputs).sigmoid() - inputs).square().sum().detach()) / len(inputs)

    before = squared_error()
    first, last = train_one_epoch(model, digits.train)
    assert last < 0.95 * first
    assert squared_error() < 0.8 * before
