"""Splits, their normalisation and where they are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.data import Augmentation, augment, draw_augmentation, load_dataset
from rl_scaling.domains.supervised.data import dataset as module
from rl_scaling.domains.supervised.data.dataset import Dataset, Pixels, make_dataset

RNG = np.random.default_rng(0)


def colourful(n: int = 60, classes: int = 3) -> Pixels:
    """Random pictures whose channels differ in mean and spread."""
    images = RNG.integers(0, [100, 200, 256], (n, 5, 4, 3)).astype(np.uint8).transpose(0, 3, 1, 2)
    return Pixels(images, np.arange(n) % classes)


def test_training_images_have_mean_0_and_deviation_1_in_every_channel() -> None:
    pixels = colourful()
    made = make_dataset("made", {"train": pixels}, {"validation": 6, "test": 12}, num_classes=3)
    inputs, targets = made.train.batch(slice(None))
    assert inputs.dtype == torch.float32
    assert torch.allclose(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(inputs.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    assert len(targets) == 42
    assert abs(float(made.test.batch(slice(None))[0].mean())) > 1e-6  # the others are measured by the same rod


def test_bytes_normalised_batch_by_batch_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> Dataset:
        return make_dataset("made", {"train": pixels}, {"validation": 6, "test": 12}, num_classes=3)

    pixels = colourful()
    floats = made()
    monkeypatch.setattr(module, "_FLOAT_BYTES", 100)
    small = made()
    assert (floats.train.inputs.dtype, small.train.inputs.dtype) == (torch.float32, torch.uint8)
    rows = torch.tensor([[3, 3, 0], [41, 7, 9]])
    for left, right in zip(floats.train.batch(rows), small.train.batch(rows), strict=True):
        assert torch.equal(left, right)
    assert small.train.batch(rows)[0].shape == (2, 3, 3, 5, 4)


def test_a_class_missing_from_the_training_images_is_named() -> None:
    pixels = colourful(classes=2)
    with pytest.raises(ConfigError, match="made: no training image is of class 2, 3 of 4"):
        make_dataset("made", {"train": pixels}, {"validation": 6, "test": 6}, num_classes=4)


def test_a_class_too_rare_to_be_held_out_is_refused_in_one_line() -> None:
    pixels = Pixels(np.zeros((9, 1, 2, 2), np.uint8), np.array([0] * 8 + [1]))
    with pytest.raises(ConfigError, match="made: 2 of 9 images cannot be held out") as caught:
        make_dataset("made", {"train": pixels}, {"validation": 2, "test": 2}, num_classes=2)
    assert "\n" not in str(caught.value)


def test_a_channel_without_contrast_stays_finite() -> None:
    made = make_dataset("made", {"train": Pixels(np.full((9, 1, 2, 2), 7, np.uint8), np.arange(9) % 2)},
                        {"validation": 2, "test": 2}, num_classes=2)  # fmt: skip
    assert torch.equal(made.train.inputs, torch.zeros(5, 1, 2, 2))


@pytest.mark.gpu
def test_batches_are_on_the_gpu_whether_or_not_the_images_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([5, 1])
    here = load_dataset("digits").train.batch(rows)
    fits = load_dataset("digits", device="cuda").train
    monkeypatch.setattr(module, "_MOST_OF_DEVICE", 0.0)
    load_dataset.__globals__["_digits"].cache_clear()
    large = load_dataset("digits", device="cuda").train
    assert (fits.inputs.device.type, large.inputs.device.type) == ("cuda", "cpu")
    for split in (fits, large):
        for got, expected in zip(split.batch(rows), here, strict=True):
            assert got.device.type == "cuda"
            assert torch.equal(got.cpu(), expected)


def test_the_training_loss_is_measured_on_a_fixed_sample_where_images_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = colourful()

    def made() -> Dataset:
        return make_dataset("made", {"train": pixels}, {"validation": 6, "test": 12}, num_classes=3)

    whole = made()
    assert whole.training_sample is whole.train
    monkeypatch.setattr(module, "TRAINING_SAMPLE", 10)
    sample, again = made().training_sample, made().training_sample
    assert len(sample) == 10
    assert torch.equal(sample.inputs, again.inputs)
    same = (sample.inputs[:, None] == whole.train.inputs).flatten(2).all(2)  # pictures are random: each is there once
    assert same.sum(1).tolist() == [1] * 10
    assert torch.equal(whole.train.targets[same.nonzero()[:, 1]], sample.targets)


def one_by_one(images: torch.Tensor, drawn: Augmentation) -> torch.Tensor:
    """Each image padded, cut out and mirrored by itself."""
    height, width = images.shape[-2:]
    results = []
    for image, down, right, mirrored in zip(images, drawn.down, drawn.right, drawn.mirrored, strict=True):
        padded = torch.zeros(len(image), height + 2 * drawn.padding, width + 2 * drawn.padding)
        padded[:, drawn.padding : drawn.padding + height, drawn.padding : drawn.padding + width] = image
        crop = padded[:, down : down + height, right : right + width]
        results.append(crop.flip(2) if mirrored else crop)
    return torch.stack(results)


def test_all_at_once_is_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(200, 3, 7, 5, generator=generator)
    drawn = draw_augmentation(200, generator)
    assert torch.equal(augment(images, drawn), one_by_one(images, drawn))
    assert {int(x) for x in drawn.down.unique()} == {int(x) for x in drawn.right.unique()} == set(range(9))
    assert 60 < int(drawn.mirrored.sum()) < 140


def test_batches_of_several_trials_are_those_of_each_alone() -> None:
    images = torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = [draw_augmentation(6, torch.Generator().manual_seed(seed), padding=2) for seed in (1, 2)]
    parts = zip(*((d.down, d.right, d.mirrored) for d in drawn), strict=True)
    together = augment(images, Augmentation(*(torch.stack(part) for part in parts), padding=2))
    for trial in range(2):
        assert torch.equal(together[trial], augment(images[trial], drawn[trial]))


def test_nothing_to_draw_changes_nothing() -> None:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = draw_augmentation(5, torch.Generator().manual_seed(0), padding=0, mirror=False)
    assert torch.equal(augment(images, drawn), images)


def test_the_seed_draws() -> None:
    first, again, other = (draw_augmentation(50, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.down, again.down)
    assert torch.equal(first.mirrored, again.mirrored)
    assert not torch.equal(first.down, other.down)
