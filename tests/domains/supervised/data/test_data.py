"""The digits, split once and for all."""

from __future__ import annotations

import numpy as np
import torch

from rl_scaling.domains.supervised.data import load_dataset, read_digits


def test_digits_are_split_in_proportion_and_every_image_is_used_once() -> None:
    digits, every = load_dataset("digits"), read_digits()
    parts = digits.train, digits.validation, digits.test
    assert [len(part) for part in parts] == [1200, 297, 300]
    assert digits.held_out == ("test", "validation")
    assert (digits.num_classes, digits.image_shape) == (10, (1, 8, 8))
    unit = load_dataset("digits", scale="unit")
    pixels = torch.cat([part.batch(slice(None))[0] for part in (unit.train, unit.validation, unit.test)])
    got = sorted(map(tuple, (pixels * 16).round().int().flatten(1).tolist()))
    assert got == sorted(map(tuple, every.images.reshape(1797, 64).tolist()))
    for part in parts:
        shares = torch.bincount(part.targets) / len(part)
        assert float((shares - torch.from_numpy(np.bincount(every.targets) / 1797)).abs().max()) < 0.005


def test_one_seed_for_all_runs_holds_out_the_same_images() -> None:
    load_dataset.__globals__["_digits"].cache_clear()
    first = load_dataset("digits")
    assert load_dataset("digits") is first
    load_dataset.__globals__["_digits"].cache_clear()
    again = load_dataset("digits")
    assert again is not first
    assert torch.equal(first.test.inputs, again.test.inputs)
