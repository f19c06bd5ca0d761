"""Runs in one batched program say what each says by itself, and leave in their time."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from rl_scaling.domains.base import Control, Ended
from rl_scaling.domains.supervised.batched import StackedRuns
from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig, kind_of
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.loop import train
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.recipe import ExampleStream, learning_rate_at
from rl_scaling.noise.moments import moments_from_groups
from rl_scaling.records import LossRecord
from tests.domains.supervised.batched.reference import train_alone

UPDATES, RATES = 210, [0.05, 0.02, 1e3, 0.1]  # a record every 2 updates


def config_of(number: int) -> SupervisedConfig:
    return SupervisedConfig(
        optimizer=OptimizerConfig(name="momentum", learning_rate=RATES[number], momentum=0.5),
        schedule=ScheduleConfig(name="linear", final_factor=0.1, decay_updates=UPDATES),
        batch_size=8,
        updates=UPDATES,
        noise_every_updates=10,
        seed=number,
    )


def run_all(
    configs: list[SupervisedConfig], stop: int | None = None
) -> tuple[dict[int, list[LossRecord]], dict[int, Ended], StackedRuns]:
    """Rows, ends, and the program, where those that are stopped at their first row after the start have left."""
    rows: dict[int, list[LossRecord]] = {number: [] for number in range(len(configs))}
    ends: dict[int, Ended] = {}
    program, control = StackedRuns(configs, load_dataset("digits")), Control()
    for number, what in train(program, control):
        assert number not in ends
        if isinstance(what, Ended):
            ends[number] = what
        elif isinstance(what, LossRecord):
            rows[number].append(what)
            control.stop |= {stop} if stop is not None and what.updates else set()
    return rows, ends, program


def test_runs_say_what_they_say_alone_whoever_leaves() -> None:
    data, (rows, ends, _) = load_dataset("digits"), run_all([config_of(number) for number in range(4)], stop=3)
    assert {number: end.status for number, end in ends.items()} == {0: "done", 1: "done", 2: "diverged"}
    assert [row.updates for row in rows[3]] == [0, 2]
    assert rows[2][-1].updates < 100
    inputs, targets = data.validation.batch(slice(None))
    for number in (0, 1):
        config, last = config_of(number), rows[number][-1]
        model = make_model("mlp", (1, 8, 8), 10, seed=number)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
        stream = ExampleStream(config, len(data.train))
        batches = [stream.rows(update) for update in range(UPDATES)]
        alone = train_alone(model, data.train, optimizer, batches, lambda u, config=config: learning_rate_at(config, u))
        assert [row.updates for row in rows[number]] == list(range(0, UPDATES + 1, 2))
        for row in rows[number][1:]:
            assert row.loss == pytest.approx(sum(alone.losses[row.updates - 2 : row.updates]) / 2, rel=1e-3)
            assert row.current_learning_rate == pytest.approx(learning_rate_at(config, row.updates - 1))
        outputs = alone.model(inputs).detach()
        assert last.validation_loss == pytest.approx(float(cross_entropy(outputs, targets)), rel=1e-4)
        with torch.no_grad():
            seen = cross_entropy(alone.model(data.train.inputs), data.train.targets)
        assert last.training_loss == pytest.approx(float(seen), rel=1e-4)
        assert last.validation_accuracy == pytest.approx(float((outputs.argmax(1) == targets).float().mean()))


def test_weights_are_those_of_each_alone() -> None:
    configs, data = [config_of(0), config_of(1)], load_dataset("digits")
    program = StackedRuns(configs, data)
    for _ in range(30):
        program.update()
    for number, config in enumerate(configs):
        model = make_model("mlp", (1, 8, 8), 10, seed=number)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
        stream = ExampleStream(config, len(data.train))
        batches = [stream.rows(update) for update in range(30)]
        alone = train_alone(model, data.train, optimizer, batches, lambda u, config=config: learning_rate_at(config, u))
        for name, parameter in alone.model.named_parameters():
            torch.testing.assert_close(program.training.state(number)[name], parameter.detach(), rtol=1e-5, atol=1e-6)


def test_every_run_says_where_it_starts_even_one_that_diverges_at_once() -> None:
    data = load_dataset("digits")
    wild = [
        dataclasses.replace(c, optimizer=dataclasses.replace(c.optimizer, learning_rate=1e30))
        for c in (config_of(0), config_of(1))
    ]
    rows, ends, _ = run_all(wild)
    assert {number: end.status for number, end in ends.items()} == {0: "diverged", 1: "diverged"}
    for number, (row,) in rows.items():
        assert row.updates == 0
        with torch.no_grad():
            outputs = make_model("mlp", (1, 8, 8), 10, seed=number)(data.validation.inputs)
        assert row.validation_loss == pytest.approx(float(cross_entropy(outputs, data.validation.targets)), rel=1e-5)
        assert math.isnan(row.loss)


def test_the_noise_scale_is_that_of_groups_taken_one_by_one() -> None:
    data, configs = load_dataset("digits"), [dataclasses.replace(config_of(number), updates=30) for number in (0, 1)]
    silent = [dataclasses.replace(config, noise_every_updates=0) for config in configs]
    (plain, *_), (rows, *_) = run_all(silent), run_all(configs)
    assert [row.updates for row in rows[0] if row.noise_measurements] == [1, 11, 21]
    assert rows[0][-1].loss == pytest.approx(plain[0][-1].loss, rel=1e-5)
    assert all(math.isnan(row.trace_cov) for row in plain[0])
    for number, config in enumerate(configs):
        model = make_model("mlp", (1, 8, 8), 10, seed=number)
        squares = []
        batch = ExampleStream(config, len(data.train)).rows(0)
        for part in [batch, *batch.view(8, 1)]:
            inputs, targets = data.train.batch(part)
            gradients = torch.autograd.grad(cross_entropy(model(inputs), targets), list(model.parameters()))
            squares.append(sum(float(gradient.double().square().sum()) for gradient in gradients))
        square, trace = moments_from_groups(squares[1:], squares[0], 1)
        assert rows[number][1].grad_sq_norm == pytest.approx(square, rel=1e-4)
        assert rows[number][1].trace_cov == pytest.approx(trace, rel=1e-4)


def test_a_kind_leaves_out_what_is_tuned() -> None:
    one, other = config_of(0), config_of(3)
    assert kind_of(one) == kind_of(other)
    without = OptimizerConfig(name="adam", learning_rate=0.1, second_moment=0.9)
    with_momentum = dataclasses.replace(without, momentum=0.5)
    kinds = {kind_of(dataclasses.replace(one, optimizer=optimizer)) for optimizer in (without, with_momentum)}
    assert len(kinds) == 2
