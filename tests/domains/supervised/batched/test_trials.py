from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.batched import Ended, Noise, Progress, StackedSGD, Trial, train_trials
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.noise.moments import moments_from_groups
from tests.domains.supervised.batched.reference import train_alone

UPDATES, RATES = [30, 12, 25, 30], [0.05, 0.02, 1e30, 0.1]
ROWS = torch.randint(1200, (4, 30, 8), generator=torch.Generator().manual_seed(0))


def make(number: int) -> Trial:
    def rate(step: int) -> float:
        return RATES[number] if number == 2 and step >= 13 else min(RATES[number], 0.1) / (1 + step)

    model = make_model("mlp", (1, 8, 8), 10, seed=number)
    return Trial(model, lambda step: ROWS[number, step], rate, UPDATES[number])


def run_all(*, stop_at: float = 0.0, noise: Noise | None = None) -> tuple[dict[int, list[Progress]], dict[int, Ended]]:
    """Rows after the first, and ends."""
    rows: dict[int, list[Progress]] = {number: [] for number in range(4)}
    ends: dict[int, Ended] = {}
    found = train_trials(
        [make(number) for number in range(4)],
        load_dataset("digits"),
        StackedSGD(momentum=0.5),
        record_every=10,
        noise=noise,
        stop=lambda number, row: number == 3 and row.loss < stop_at,
    )
    for number, what in found:
        assert number not in ends
        if isinstance(what, Ended):
            ends[number] = what
        elif what.updates:
            rows[number].append(what)
    return rows, ends


def test_trials_say_what_they_say_alone_and_leave_in_their_time() -> None:
    data, (rows, ends) = load_dataset("digits"), run_all()
    assert {number: (end.updates, end.status) for number, end in ends.items()} == {
        0: (30, "done"),
        1: (12, "done"),
        2: (14, "diverged"),
        3: (30, "done"),
    }
    inputs, targets = data.validation.batch(slice(None))
    for number in (0, 1, 3):
        trial, last = make(number), rows[number][-1]
        optimizer = torch.optim.SGD(trial.model.parameters(), momentum=0.5)
        batches = list(ROWS[number, : trial.updates])
        alone = train_alone(trial.model, data.train, optimizer, batches, trial.learning_rate)
        at = [row.updates for row in rows[number]]
        assert at == [10, 20, 30] if number != 1 else at == [10, 12]  # the ends of others leave no trace
        for before, row in zip([0, *at], rows[number], strict=False):
            part = alone.losses[before : row.updates]
            assert row.loss == pytest.approx(sum(part) / len(part), rel=1e-5)
        outputs = alone.model(inputs).detach()
        loss = torch.nn.functional.cross_entropy(outputs, targets)
        assert last.validation_loss == pytest.approx(float(loss), rel=1e-5)
        with torch.no_grad():
            seen = torch.nn.functional.cross_entropy(alone.model(data.train.inputs), data.train.targets)
        assert last.training_loss == pytest.approx(float(seen), rel=1e-5)
        assert last.validation_accuracy == pytest.approx(float((outputs.argmax(1) == targets).float().mean()))
        for name, parameter in alone.model.named_parameters():
            torch.testing.assert_close(ends[number].weights[name], parameter.detach(), rtol=1e-5, atol=1e-6)


def test_every_trial_says_where_it_starts_even_one_that_diverges_at_once() -> None:
    data = load_dataset("digits")
    trials = [dataclasses.replace(make(number), learning_rate=lambda step: 1e30) for number in (0, 1)]
    rows = [
        (n, row) for n, row in train_trials(trials, data, StackedSGD(), record_every=10) if isinstance(row, Progress)
    ]
    assert [(number, row.updates) for number, row in rows] == [(0, 0), (1, 0)]
    for number, row in rows:
        with torch.no_grad():
            outputs = trials[number].model(data.validation.inputs)
        loss = torch.nn.functional.cross_entropy(outputs, data.validation.targets)
        assert row.validation_loss == pytest.approx(float(loss), rel=1e-5)
        assert math.isnan(row.loss)


def test_a_trial_that_has_seen_enough_leaves() -> None:
    rows, ends = run_all(stop_at=100.0)
    assert (ends[3].status, ends[3].updates, len(rows[3])) == ("stopped", 10, 1)
    assert ends[0].status == "done"


def test_the_noise_scale_is_that_of_groups_taken_one_by_one() -> None:
    data, (plain, _), (rows, _) = load_dataset("digits"), run_all(), run_all(noise=Noise(every_updates=10, groups=4))
    assert [row.noise_measurements for row in rows[0]] == [1, 1, 1]
    assert [row.noise_measurements for row in rows[1]] == [1, 1]
    assert rows[0][-1].loss == pytest.approx(plain[0][-1].loss, rel=1e-5)
    assert math.isnan(plain[0][0].trace_cov)
    for number in (0, 1, 3):
        model = make(number).model
        squares = []
        for part in [ROWS[number, 0], *ROWS[number, 0].view(4, 2)]:
            inputs, targets = data.train.batch(part)
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            squares.append(sum(float(gradient.double().square().sum()) for gradient in gradients))
        square, trace = moments_from_groups(squares[1:], squares[0], 2)
        assert rows[number][0].grad_sq_norm == pytest.approx(square, rel=1e-4)
        assert rows[number][0].trace_cov == pytest.approx(trace, rel=1e-4)


def test_trials_without_updates_are_refused() -> None:
    trial = dataclasses.replace(make(0), updates=0)
    for trials in ([], [trial]):
        with pytest.raises(ConfigError, match="1 update or more"):
            next(train_trials(trials, load_dataset("digits"), StackedSGD(), record_every=5))
