"""Trials trained together go the way that each goes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rl_scaling.domains.supervised.batched import training as module
from rl_scaling.domains.supervised.batched.forward import StackedAverage, StackedSGD
from rl_scaling.domains.supervised.batched.training import StackedTraining
from rl_scaling.domains.supervised.data import Dataset, load_dataset
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.models.small import Autoencoder
from rl_scaling.domains.supervised.recipe import flat
from tests.domains.supervised.batched.reference import train_alone

TRIALS, STEPS, BATCH = 4, 12, 8
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {},
    "cnn": {"channels": (4, 6), "hidden": 32},
    "resnet8": {},
    "wide-resnet-skipinit": {"depth": 10, "width": 1},
    "autoencoder": {"hidden": (40, 20, 8)},
}


def digits(name: str) -> Dataset:
    return load_dataset("digits", scale="unit" if name == "autoencoder" else "standard")


def rows_of(trial: int, steps: int, batch: int, n: int) -> list[Tensor]:
    """Each trial draws its own batches."""
    generator = torch.Generator().manual_seed(100 + trial)
    return [torch.randint(n, (batch,), generator=generator) for _ in range(steps)]


def rate(trial: int) -> Callable[[int], float]:
    """Each trial has a learning rate of its own that falls."""
    return lambda step: 0.02 * (trial + 1) * (1 - step / 50)


def models_of(name: str, count: int = TRIALS) -> list[nn.Module]:
    return [make_model(name, (1, 8, 8), 10, seed=seed, **SMALL[name]) for seed in range(count)]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", SMALL)
def test_every_model_takes_the_same_way_as_alone(name: str, label_smoothing: float) -> None:
    data = digits(name)
    scale = 0.02 if name == "autoencoder" else 1.0  # its loss is summed over pixels
    together = StackedTraining(
        models_of(name),
        data.train,
        StackedSGD(momentum=0.9),
        average=StackedAverage(0.9),
        label_smoothing=label_smoothing,
    )
    batches = [rows_of(trial, STEPS, BATCH, len(data.train)) for trial in range(TRIALS)]
    losses = []
    for step in range(STEPS):
        rates = torch.tensor([scale * rate(trial)(step) for trial in range(TRIALS)])
        losses.append(together.step(torch.stack([rows[step] for rows in batches]), rates).losses)
    for trial, model in enumerate(models_of(name)):
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
        alone = train_alone(
            model,
            data.train,
            optimizer,
            batches[trial],
            lambda step, trial=trial: scale * rate(trial)(step),
            label_smoothing=label_smoothing,
        )
        got = torch.stack(losses)[:, trial]
        torch.testing.assert_close(got, torch.tensor(alone.losses), rtol=1e-5, atol=1e-5)
        row = together.row(trial)
        for own, kept in ((alone.model, row["weights"]), (alone.average, row["average"])):
            torch.testing.assert_close(kept, flat(own), rtol=1e-5, atol=1e-5)


def test_a_diverged_trial_harms_no_other_and_can_leave() -> None:
    data = digits("cnn")
    batches = torch.stack([torch.stack(rows_of(trial, STEPS, BATCH, len(data.train))) for trial in range(TRIALS)])
    rates = torch.tensor([0.01, 1e9, 0.02, 0.03])
    mixed = StackedTraining(models_of("cnn"), data.train, StackedSGD(momentum=0.9), average=StackedAverage(0.5))
    sound = StackedTraining(
        [m for i, m in enumerate(models_of("cnn")) if i != 1],
        data.train,
        StackedSGD(momentum=0.9),
        average=StackedAverage(0.5),
    )
    left, ended = torch.tensor([0, 2, 3]), torch.zeros(0)
    for step in range(STEPS):
        chosen = batches[:, step] if len(mixed) == TRIALS else batches[left, step]
        ended = mixed.step(chosen, rates if len(mixed) == TRIALS else rates[left]).losses
        expected = sound.step(batches[left, step], rates[left]).losses
        if step == 10:
            assert not math.isfinite(float(ended[1]))
            mixed.keep(left)
            ended = ended[left]
        torch.testing.assert_close(ended if len(ended) == 3 else ended[left], expected, rtol=1e-5, atol=1e-6)
    for trial in range(3):
        weights = (part.row(trial)["weights"] for part in (mixed, sound))
        torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8", "autoencoder"])
def test_evaluation_is_that_of_each_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 400)  # several parts, the last not full
    data = digits(name)
    # Smoothing of labels is of what is trained, not of what is evaluated.
    together = StackedTraining(models_of(name), data.train, StackedSGD(), label_smoothing=0.1)
    losses, accuracies = together.evaluate(data.validation)
    inputs, targets = data.validation.batch(slice(None))
    for trial, model in enumerate(models_of(name)):
        outputs = model(inputs).detach()
        loss = (
            model.loss(outputs, inputs)
            if isinstance(model, Autoencoder)
            else nn.functional.cross_entropy(outputs, targets)
        )
        assert float(losses[trial]) == pytest.approx(float(loss), rel=1e-5)
        if name == "autoencoder":
            assert math.isnan(float(accuracies[trial]))
        else:
            assert float(accuracies[trial]) == pytest.approx(float((outputs.argmax(1) == targets).float().mean()))


@pytest.mark.parametrize("at_once", [1, 10**9])
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8"])
def test_groups_give_norms_and_the_same_update(name: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GROUP_BYTES", at_once)
    data, rates = digits(name), torch.tensor([0.1, 0.05])
    rows = torch.stack([rows_of(trial, 1, 12, len(data.train))[0] for trial in range(2)])
    plain, measured = (StackedTraining(models_of(name, 2), data.train, StackedSGD()) for _ in range(2))
    first, second = plain.step(rows, rates), measured.step(rows, rates, groups=4)
    torch.testing.assert_close(first.losses, second.losses)
    torch.testing.assert_close(plain.parameters.matrix, measured.parameters.matrix, rtol=1e-5, atol=1e-6)
    assert second.group_sq_norms is not None
    assert second.batch_sq_norms is not None
    for trial, model in enumerate(models_of(name, 2)):
        for group, part in enumerate([rows[trial], *rows[trial].view(4, 3)]):
            inputs, targets = data.train.batch(part)
            loss = nn.functional.cross_entropy(model(inputs), targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            expected = sum(float(g.double().square().sum()) for g in gradients)
            got = second.batch_sq_norms[trial] if group == 0 else second.group_sq_norms[trial, group - 1]
            assert float(got) == pytest.approx(expected, rel=1e-4)


def test_a_batch_that_does_not_divide_into_groups_is_refused() -> None:
    data = digits("mlp")
    training = StackedTraining(models_of("mlp", 1), data.train, StackedSGD())
    with pytest.raises(ValueError, match="a batch of 5 does not divide into 2 groups"):
        training.step(torch.zeros(1, 5, dtype=torch.int64), torch.ones(1), groups=2)
    with pytest.raises(ValueError, match="2 batches, 1 learning rates for 1 trials"):
        training.step(torch.zeros(2, 5, dtype=torch.int64), torch.ones(1))
