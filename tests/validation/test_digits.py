from __future__ import annotations

import copy

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


def test_an_update_is_that_of_torch_and_its_groups_are_the_batch_in_parts() -> None:
    """Weight decay is part of the loss, so that it is in every group's gradient."""
    model, (images, classes) = small_mlp(4, 0), load_digits()
    training = GroupedSGD(model, (images, classes), torch.Generator().manual_seed(1), groups=3, weight_decay=0.1)
    naive = copy.deepcopy(model)
    optimizer = torch.optim.SGD(naive.parameters(), lr=0.5)
    rows = torch.randint(len(classes), (12,), generator=torch.Generator().manual_seed(1))

    def gradient(some: torch.Tensor) -> torch.Tensor:
        decay = sum((p**2).sum() for p in naive.parameters())
        loss = cross_entropy(naive(images[some]), classes[some]) + 0.1 / 2 * decay
        optimizer.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in naive.parameters() if p.grad is not None])

    expected = [float(gradient(part).square().sum()) for part in rows.view(3, 4)]
    whole, batch = float(gradient(torch.arange(len(classes))).square().sum()), float(gradient(rows).square().sum())
    optimizer.step()
    assert training.whole()[0] == pytest.approx(whole, rel=1e-4)
    other = training.copy()
    norms, found = training.update(0.5, 12)
    assert norms == pytest.approx(expected, rel=1e-4)
    assert found == pytest.approx(batch, rel=1e-4)
    assert other.update(0.5, 12) == (norms, found), "a copy draws the same batches"
    for one, another, third in zip(*(m.parameters() for m in (model, naive, other.model)), strict=True):
        torch.testing.assert_close(one, another)
        assert torch.equal(one, third)


def test_training_learns() -> None:
    data, model = load_digits(), small_mlp(16, 0)
    before = float(cross_entropy(model(data[0]), data[1]).detach())
    GroupedSGD(model, data, torch.Generator().manual_seed(1)).train(200)
    assert float(cross_entropy(model(data[0]), data[1]).detach()) < before / 4
