"""Every model by its name; numbers of parameters, added up layer by layer from the papers."""

from __future__ import annotations

import math
from itertools import pairwise

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


GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def convolution(inputs: int, outputs: int, size: int, *, bias: bool) -> int:
    return inputs * outputs * size * size + (outputs if bias else 0)


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def norm(channels: int) -> int:
    return 2 * channels


def simple_cnn(pixels: int, first: int, second: int, hidden: int) -> int:
    """5 x 5 filters, "same" borders, two halvings of the pixels on a side: 28 -> 14 -> 7."""
    return (
        convolution(1, first, 5, bias=True)
        + convolution(first, second, 5, bias=True)
        + linear(second * (pixels // 4) ** 2, hidden)
        + linear(hidden, 10)
    )


def resnet8() -> int:
    """n = 1: one convolution, then two for each of 16, 32 and 64 channels; biases in place of normalisation."""
    convolutions = [(3, 16), (16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)]
    return sum(convolution(*sizes, 3, bias=True) for sizes in convolutions) + linear(64, 10)


def resnet32() -> int:
    """n = 5: one convolution and ten for each width; no biases, a normalisation each; shortcuts have no parameters."""
    widths = [3, 16, *[16] * 10, *[32] * 10, *[64] * 10]
    return sum(convolution(*sizes, 3, bias=False) + norm(sizes[1]) for sizes in pairwise(widths)) + linear(64, 10)


def vgg11() -> int:
    """Eight convolutions, each with a normalisation, then one linear layer on the one pixel that is left of 32."""
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    return sum(convolution(*sizes, 3, bias=False) + norm(sizes[1]) for sizes in pairwise(widths)) + linear(512, 10)


def wide_resnet(*, skip_init: bool) -> int:
    """16 = 6 x 2 + 4 layers: two blocks for each of 64, 128 and 256 channels, each first one with a 1 x 1 shortcut."""
    total, before = convolution(3, 16, 3, bias=skip_init), 16
    for channels in (64, 128, 256):
        total += convolution(before, channels, 1, bias=skip_init)
        for _ in range(2):
            total += convolution(before, channels, 3, bias=skip_init) + convolution(
                channels, channels, 3, bias=skip_init
            )
            total += 1 if skip_init else norm(before) + norm(channels)
            before = channels
    return total + (0 if skip_init else norm(256)) + linear(256, 10)


def autoencoder() -> int:
    widths = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
    return sum(linear(*sizes) for sizes in pairwise(widths))


@pytest.mark.parametrize(
    ("name", "shape", "by_hand", "total"),
    [
        ("mlp", (1, 8, 8), linear(64, 64) + linear(64, 64) + linear(64, 10), 8_970),
        ("cnn", GREY, simple_cnn(28, 32, 64, 1024), 3_274_634),
        ("small-cnn", (1, 8, 8), simple_cnn(8, 8, 16, 64), 8_234),
        ("resnet8", COLOUR, resnet8(), 75_050),
        ("resnet32", COLOUR, resnet32(), 464_154),  # He et al. 2016, table 6: 0.46 M
        ("vgg11", COLOUR, vgg11(), 9_228_362),
        ("wide-resnet", COLOUR, wide_resnet(skip_init=False), 2_748_890),  # Zagoruyko and Komodakis 2016: 2.7 M
        ("wide-resnet-skipinit", COLOUR, wide_resnet(skip_init=True), 2_747_536),
        ("autoencoder", GREY, autoencoder(), 2_837_314),  # Hinton and Salakhutdinov 2006: 2.8 M
    ],
)
def test_parameters_are_those_of_the_paper(name: str, shape: tuple[int, int, int], by_hand: int, total: int) -> None:
    model = make_model(name, shape, 10, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == total
    outputs = model.eval()(torch.rand(2, *shape))
    assert outputs.shape == ((2, *shape) if name == "autoencoder" else (2, 10))
    assert torch.isfinite(outputs).all()


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "small-cnn", "resnet8", "resnet32", "wide-resnet", "wide-resnet-skipinit", "autoencoder"]
)
def test_models_fit_the_digits(name: str) -> None:
    outputs = make_model(name, (1, 8, 8), 10, seed=0)(torch.rand(3, 1, 8, 8))
    assert math.prod(outputs.shape) == 3 * (64 if name == "autoencoder" else 10)
