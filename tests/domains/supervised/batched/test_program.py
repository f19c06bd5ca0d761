"""Runs in one batched program say what each says by itself, and leave in their time."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Control, Ended
from rl_scaling.domains.supervised.batched import program
from rl_scaling.domains.supervised.batched.program import StackedRuns, measure_gain, together_pays
from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig, kind_of
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.loop import train
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.recipe import ExampleStream, flat, learning_rate_at, make_average, make_optimizer
from rl_scaling.noise.estimate import moments_from_groups
from rl_scaling.records import LossRecord
from tests.domains.supervised.batched.reference import train_alone
from tests.domains.supervised.few import run_together

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
        torch.testing.assert_close(program.training.row(number)["weights"], flat(alone.model), rtol=1e-5, atol=1e-6)


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


OPTIMIZERS = [
    OptimizerConfig(name="sgd", learning_rate=0.1),
    OptimizerConfig(name="momentum", learning_rate=0.02, momentum=0.9),
    OptimizerConfig(name="nesterov", learning_rate=0.02, momentum=0.9),
    OptimizerConfig(name="adam", learning_rate=2e-3, momentum=0.9, second_moment=0.999),
    OptimizerConfig(name="adam", learning_rate=2e-3),
    OptimizerConfig(name="rmsprop", learning_rate=1e-3),
    OptimizerConfig(name="sgd", learning_rate=0.1, ema=0.9),
]


def rows_of(configs: list[SupervisedConfig]) -> dict[int, list[LossRecord]]:
    """Rows after the first, which is before any update."""
    rows: dict[int, list[LossRecord]] = {number: [] for number in range(len(configs))}
    for number, row in run_together(configs, load_dataset("digits")):
        if isinstance(row, LossRecord) and row.updates:
            rows[number].append(row)
    return rows


def by_plain_torch(config: SupervisedConfig) -> tuple[list[float], float]:
    """The loss of every batch, and the validation loss at the end."""
    data = load_dataset("digits")
    model = make_model(config.model, data.image_shape, data.num_classes, seed=config.seed)
    optimizer, average = make_optimizer(config.optimizer, model), make_average(config.optimizer, model)
    stream, losses = ExampleStream(config, len(data.train)), []
    for update in range(config.updates):
        inputs, targets = data.train.batch(stream.rows(update))
        loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)
        losses.append(loss.item())
    inputs, targets = data.validation.batch(torch.arange(len(data.validation)))
    with torch.no_grad():
        return losses, cross_entropy((average or model)(inputs), targets).item()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.label)
def test_a_run_is_that_of_a_plain_loop(optimizer: OptimizerConfig) -> None:
    config = SupervisedConfig(optimizer=optimizer, batch_size=8, updates=30, seed=3, noise_every_updates=20)
    tuned = {name: 0.5 for name in ("momentum", "ema") if getattr(optimizer, name)}
    other = dataclasses.replace(config, optimizer=dataclasses.replace(optimizer, learning_rate=1e-3, **tuned), seed=4)
    rows = rows_of([other, config])[1]
    losses, validation_loss = by_plain_torch(config)
    assert [row.updates for row in rows] == list(range(1, 31))
    assert [row.loss for row in rows] == pytest.approx(losses, rel=1e-4)
    assert rows[-1].validation_loss == pytest.approx(validation_loss, rel=1e-4)
    assert rows[-1].examples == 240
    assert all(row.noise_measurements == (row.updates == 1 or row.updates == 21) for row in rows)


def test_a_rate_falls_where_the_training_loss_triggers_it() -> None:
    schedule = ScheduleConfig(name="triggered", thresholds=(1.5, 0.8), factor=0.5)
    config = SupervisedConfig(optimizer=OPTIMIZERS[0], schedule=schedule, batch_size=32, updates=200)
    rows = rows_of([config])[0]
    passed = [sum(before.training_loss <= t for t in schedule.thresholds) for before in rows[:-1]]
    assert set(passed) == {0, 1, 2}
    expected = [0.1 * 0.5 ** max(passed[: n + 1]) for n in range(len(passed))]
    assert [row.current_learning_rate for row in rows[1:]] == pytest.approx(expected)


def test_rows_hold_losses_without_smoothing_and_the_accuracy() -> None:
    optimizer = OptimizerConfig(learning_rate=0.3)
    config = SupervisedConfig(optimizer=optimizer, batch_size=64, updates=400, label_smoothing=0.3)
    last = rows_of([config])[0][-1]
    # Smoothed, no loss can be below that of the smoothed targets themselves: 1.13 nats here.
    smoothed = torch.full((10,), 0.03) + 0.7 * torch.eye(10)[0]
    assert float(torch.special.entr(smoothed).sum()) < last.loss
    assert last.training_loss < last.validation_loss < 0.8
    assert 0.9 < last.validation_accuracy <= 1


def test_what_cannot_train_together_is_refused() -> None:
    config = SupervisedConfig(optimizer=OPTIMIZERS[0])
    for others, complaint in (
        ([], "nothing to train"),
        ([config, dataclasses.replace(config, batch_size=8)], "may differ in seed, rate"),
        ([config, dataclasses.replace(config, optimizer=OPTIMIZERS[-1])], "may differ in seed, rate"),
        ([dataclasses.replace(config, augment=True)], "augment"),
        ([dataclasses.replace(config, b_noise_every_rows=1)], "measure no B_noise"),
        ([dataclasses.replace(config, model="resnet32")], "one at a time"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            rows_of(others)


def test_both_ways_are_timed_and_models_left_alone() -> None:
    models = [make_model("mlp", (1, 8, 8), 10, seed=seed, hidden=(8,)) for seed in range(16)]
    before = [parameter.detach().clone() for parameter in models[0].parameters()]
    found = measure_gain(models, load_dataset("digits"), 1, rounds=3, seconds=0.02)
    assert (found.batch_size, found.trials) == (1, 16)
    assert found.low <= found.ratio <= found.high
    assert found.ratio > 1  # sixteen tiny networks on single images: the one case that needs no stop-watch
    assert all(bool((a == b).all()) for a, b in zip(before, models[0].parameters(), strict=True))


def test_the_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    data, options = load_dataset("digits"), (("hidden", (8,)),)
    first = together_pays("mlp", options, data, 1, 16)
    monkeypatch.setattr(program, "measure_gain", None)
    assert together_pays("mlp", options, data, 1, 16) == first
    assert not together_pays("mlp", options, data, 1, 1)
