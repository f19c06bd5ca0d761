from __future__ import annotations

import pytest
import torch

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.models import MODELS, make_model


def test_the_seed_makes_the_weights_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (make_model("mlp", (1, 8, 8), 10, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_unknown_models_and_options_are_one_line() -> None:
    with pytest.raises(ConfigError, match=f"no model 'resnet': {', '.join(MODELS)}"):
        make_model("resnet", (1, 8, 8), 10, seed=0)
    with pytest.raises(ConfigError, match=r"does not take these options.*depth"):
        make_model("mlp", (1, 8, 8), 10, seed=0, depth=3)


@pytest.mark.parametrize(("name", "smallest"), [("cnn", 4), ("resnet8", 8), ("vgg11", 32), ("wide-resnet", 8)])
def test_images_too_small_for_a_model_are_refused(name: str, smallest: int) -> None:
    make_model(name, (3, smallest, smallest), 10, seed=0)
    with pytest.raises(ConfigError, match=f"needs images of {smallest} x {smallest} pixels or more"):
        make_model(name, (3, smallest - 1, smallest), 10, seed=0)


@pytest.mark.parametrize("options", [{"hidden": (0,)}, {"hidden": (8, -1)}])
def test_layers_without_units_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="sizes of 1 or more"):
        make_model("mlp", (1, 8, 8), 10, seed=0, **options)
