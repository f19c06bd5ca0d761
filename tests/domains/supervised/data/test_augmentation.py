from __future__ import annotations

import torch

from rl_scaling.domains.supervised.data import Augmentation, augment, draw_augmentation


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
