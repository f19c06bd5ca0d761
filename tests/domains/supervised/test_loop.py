"""Runs that are interrupted, stopped and resumed at any update, alone and stacked."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Checkpoint, Control, Ended, Event, Hardware
from rl_scaling.domains.supervised import single
from rl_scaling.domains.supervised.config import (
    AdaptiveExamplesConfig,
    OptimizerConfig,
    ScheduleConfig,
    SupervisedConfig,
)
from rl_scaling.domains.supervised.loop import Program
from rl_scaling.domains.supervised.noise import b_noise
from rl_scaling.records import LossRecord
from tests.domains.supervised.few import Few

UPDATES = 24
SGD = OptimizerConfig(learning_rate=0.2)
OPTIMIZERS = [
    SGD,
    OptimizerConfig(name="momentum", learning_rate=0.02, momentum=0.9),
    OptimizerConfig(name="nesterov", learning_rate=0.02, momentum=0.9),
    OptimizerConfig(name="adam", learning_rate=2e-3, momentum=0.9, second_moment=0.999),
    OptimizerConfig(name="adam", learning_rate=2e-3),
    OptimizerConfig(name="rmsprop", learning_rate=1e-3),
    OptimizerConfig(name="sgd", learning_rate=0.1, ema=0.9),
    OptimizerConfig(name="adam", learning_rate=2e-3, momentum=0.9, ema=0.5),
]
# Of the weights alone, and so of the trajectory, wherever a run was interrupted.
STANDING = (
    *("updates", "examples", "training_loss", "validation_loss", "validation_accuracy"),
    *("current_learning_rate", "current_batch_size"),
)


DIGITS = Few()


def config_of(optimizer: OptimizerConfig = SGD, **changes: Any) -> SupervisedConfig:
    return SupervisedConfig(optimizer=optimizer, **{"batch_size": 16, "updates": UPDATES, **changes})


def varied(config: SupervisedConfig, seed: int) -> SupervisedConfig:
    """Of another seed, rate and momentum."""
    optimizer = config.optimizer
    rate, momentum = optimizer.learning_rate * (1 + seed / 3), optimizer.momentum * 0.9**seed
    changed = dataclasses.replace(optimizer, learning_rate=rate, momentum=momentum)
    return dataclasses.replace(config, seed=seed, optimizer=changed)


SINGLE = {
    **{f"optimizer {number}": config_of(optimizer) for number, optimizer in enumerate(OPTIMIZERS)},
    # A record every second update, so that an interruption may come between two.
    "triggered": config_of(
        schedule=ScheduleConfig(name="triggered", thresholds=tuple(2.3 - 0.05 * n for n in range(44)), factor=0.95),
        updates=202,
        batch_size=4,
        noise_every_updates=3,
    ),
    "by epoch, smoothed and augmented": config_of(sampling="epoch", label_smoothing=0.1, augment=True),
    "adaptive": config_of(
        batch_size=8,
        updates=100,
        adaptive=AdaptiveExamplesConfig(exchange_rate=200, change_every_updates=3, window_measurements=5),
    ),
    "adaptive average": config_of(
        OPTIMIZERS[6],
        batch_size=8,
        updates=100,
        adaptive=AdaptiveExamplesConfig(exchange_rate=99, change_every_updates=4, measure_every_updates=2),
    ),
    "no noise scale": config_of(noise_every_updates=0),
    "dropout": config_of(OPTIMIZERS[3], model="cnn", dropout=0.4, batch_size=4, updates=5),
    "ghost batch normalisation": config_of(OPTIMIZERS[6], model="resnet32", batch_size=4, updates=3),
    "B_noise": config_of(updates=202, batch_size=2, b_noise_every_rows=40),
}
STACKED = {
    name: [varied(SINGLE[name], seed) for seed in range(3)]
    for name in (*(f"optimizer {number}" for number in range(len(OPTIMIZERS))), "triggered")
}


@pytest.fixture(autouse=True, scope="module")
def cheap_b_noise() -> Generator[None]:
    """B_noise as it is, from fewer examples."""
    few = functools.partial(b_noise, measurements=2, groups=2, group_size=4, images=20)
    with mock.patch.object(single, "b_noise", few):
        yield


Resume = Sequence[Mapping[str, Any] | None] | None
React = Callable[[Control, int, LossRecord], None]


@contextmanager
def signal_during(update: int | None, control: Control) -> Generator[None]:
    """Ask for an interrupt while this update is made, as a signal does."""
    plain = Program.update

    def made(self: Program) -> None:
        plain(self)
        control.interrupt = control.interrupt or self.updates == update

    with mock.patch.object(Program, "update", made):
        yield


def events(
    configs: Sequence[SupervisedConfig],
    resume: Resume = None,
    *,
    interrupt: int | None = None,
    react: React | None = None,
) -> list[tuple[int, Event]]:
    """What runs say. `interrupt` comes while that update is made; `react` hears every record."""
    control, found = Control(), list[tuple[int, Event]]()
    with signal_during(interrupt, control):
        for number, event in DIGITS.run(configs, resume or [None] * len(configs), control, Hardware(device="cpu")):
            found.append((number, event))
            if react is not None and isinstance(event, LossRecord):
                react(control, number, event)
    return found


def of(found: Sequence[tuple[int, Event]], number: int) -> list[Event]:
    return [event for n, event in found if n == number]


def records(found: Sequence[Event]) -> list[LossRecord]:
    return [event for event in found if isinstance(event, LossRecord)]


def stored(checkpoint: Event) -> dict[str, Any]:
    """Through a file, as the store does it."""
    assert isinstance(checkpoint, Checkpoint)
    file = io.BytesIO()
    torch.save(dict(checkpoint.state), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@cache
def whole(name: str) -> tuple[tuple[int, Event], ...]:
    """The run, or the runs, of a name without interruption."""
    return tuple(events([SINGLE[name]] if name in SINGLE else STACKED[name.removeprefix("stacked ")]))


def totals(found: Sequence[LossRecord]) -> list[float]:
    """What rows say of the updates since the row before, added up over rows."""
    between = [row.updates - before.updates for before, row in itertools.pairwise(found)]
    losses = sum(row.loss * updates for row, updates in zip(found[1:], between, strict=True))
    measured = [row for row in found if row.noise_measurements]
    sums = [
        sum(getattr(row, name) * row.noise_measurements for row in measured) for name in ("grad_sq_norm", "trace_cov")
    ]
    return [losses, float(sum(row.noise_measurements for row in found)), *sums]


def require_same(found: Sequence[LossRecord], expected: Sequence[LossRecord], rel: float) -> None:
    """Rows of a run with interruptions have those of the run without, and rows of the interruptions in between."""
    at = {row.updates: row for row in found}
    assert len(at) == len(found)
    assert sorted(at) == [row.updates for row in found]
    shared = [at[row.updates] for row in expected]
    for name in STANDING:
        values, wanted = ([getattr(row, name) for row in rows] for rows in (shared, expected))
        assert values == pytest.approx(wanted, rel=rel, abs=rel, nan_ok=True), name
    for name in ("noise_scale", "noise_scale_low", "noise_scale_high", "hessian_noise_scale"):
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(shared, expected, strict=True)]
        # Where a row of an interruption has just told it there is nothing new to tell.
        both = [(a, b) for a, b in pairs if not math.isnan(a) and not math.isnan(b)]
        assert [a for a, _ in both] == pytest.approx([b for _, b in both], rel=rel), name
        assert name != "hessian_noise_scale" or len(both) == sum(not math.isnan(b) for _, b in pairs)
    assert totals(found) == pytest.approx(totals(expected), rel=max(rel, 1e-9))
    assert [row.wall_seconds for row in found] == sorted(row.wall_seconds for row in found)


@pytest.mark.parametrize("name", SINGLE)
@settings(max_examples=4, phases=[Phase.generate])
@given(data=st.data())
def test_a_run_that_is_interrupted_is_bit_for_bit_the_run_that_is_not(name: str, data: st.DataObject) -> None:
    expected = records(of(whole(name), 0))
    last = expected[-1].updates
    state, found = None, list[LossRecord]()
    for update in sorted(data.draw(st.sets(st.integers(1, last - 1), min_size=1, max_size=3), "interrupted at")):
        said = of(events([SINGLE[name]], [state], interrupt=update), 0)
        assert isinstance(said[-1], Checkpoint)
        assert not any(isinstance(event, Checkpoint | Ended) for event in said[:-1])
        found += records(said)
        assert said[-1].updates == found[-1].updates == update
        state = stored(said[-1])
    *rest, ended = of(events([SINGLE[name]], [state]), 0)
    assert ended == Ended()
    require_same([*found, *records(rest)], expected, rel=0)


@pytest.mark.parametrize("name", STACKED)
@settings(max_examples=3, phases=[Phase.generate])
@given(data=st.data())
def test_runs_that_are_interrupted_together_resume_in_any_company(name: str, data: st.DataObject) -> None:
    configs, expected = STACKED[name], whole(f"stacked {name}")
    update = data.draw(st.integers(1, configs[0].updates - 1), "interrupted at")
    company = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True), "resumed together")
    before = events(configs, interrupt=update)
    assert [number for number, event in before if isinstance(event, Checkpoint)] == [0, 1, 2]
    states = [stored(of(before, number)[-1]) for number in company]
    after = events([configs[number] for number in company], states)
    for place, number in enumerate(company):
        rest = of(after, place)
        assert rest[-1] == Ended()
        found = [*records(of(before, number)), *records(rest)]
        require_same(found, records(of(expected, number)), rel=1e-5 if len(company) > 1 else 1e-4)


@pytest.mark.parametrize("name", [f"optimizer {number}" for number in range(len(OPTIMIZERS))])
def test_a_run_that_began_alone_resumes_with_others(name: str) -> None:
    states = [stored(of(events([config], interrupt=7), 0)[-1]) for config in STACKED[name]]
    after = events(STACKED[name], states)
    for number in range(3):
        expected = {row.updates: row for row in records(of(whole(f"stacked {name}"), number))}
        for row in records(of(after, number)):
            assert row.training_loss == pytest.approx(expected[row.updates].training_loss, rel=1e-4)
    assert {row.updates for row in records(of(after, 0))} == set(range(8, UPDATES + 1))


@pytest.mark.parametrize("name", ["triggered", "adaptive average", "stacked optimizer 3"])
def test_a_checkpoint_that_is_asked_for_comes_with_the_next_record(name: str) -> None:
    """What follows it is lost with a kill, and made again just the same."""
    configs = [SINGLE[name]] if name in SINGLE else STACKED[name.removeprefix("stacked ")]

    def react(control: Control, number: int, row: LossRecord) -> None:
        assert not control.checkpoint or number
        control.checkpoint = control.checkpoint or row.updates in (4, 10)

    said = events(configs, react=react)
    for number in range(len(configs)):
        own = of(said, number)
        places = [place for place, event in enumerate(own) if isinstance(event, Checkpoint)]
        assert len(places) == 2
        for place in places:
            before, checkpoint = own[place - 1], own[place]
            assert isinstance(before, LossRecord)
            assert isinstance(checkpoint, Checkpoint)
            assert checkpoint.updates == before.updates
            rest = records(of(events([configs[number]], [stored(checkpoint)]), 0))
            rel = 1e-5 if len(configs) > 1 else 0
            require_same([*records(own[:place]), *rest], records(of(whole(name), number)), rel)


@pytest.mark.parametrize("name", ["optimizer 6", "stacked optimizer 6"])
def test_a_run_that_is_stopped_leaves_its_checkpoint_and_the_others_train_on(name: str) -> None:
    configs = [SINGLE[name]] if name in SINGLE else STACKED[name.removeprefix("stacked ")]
    stop = len(configs) - 1

    def react(control: Control, number: int, row: LossRecord) -> None:
        if (number, row.updates) == (stop, 5):
            control.stop.add(stop)

    said = events(configs, react=react)
    *_, last, checkpoint = of(said, stop)
    assert isinstance(last, LossRecord)
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.updates == last.updates == 5
    for number in range(stop):
        require_same(records(of(said, number)), records(of(whole(name), number)), 1e-5)
        assert of(said, number)[-1] == Ended()
    rest = records(of(events([configs[stop]], [stored(checkpoint)]), 0))
    assert rest[0].updates == 6
    require_same([*records(of(said, stop)), *rest], records(of(whole(name), stop)), 1e-4 if stop else 0)


@pytest.mark.parametrize("count", [1, 2])
def test_an_interrupt_before_the_first_update_or_at_the_last_record(count: int) -> None:
    configs = STACKED["optimizer 1"][:count]

    def at(update: int) -> React:
        def react(control: Control, number: int, row: LossRecord) -> None:
            control.interrupt = control.interrupt or row.updates == update

        return react

    first = events(configs, react=at(0))
    assert [type(event) for _, event in first] == [LossRecord] * count + [Checkpoint] * count
    states = [stored(event) for _, event in first[count:]]
    second = events(configs, states, react=at(UPDATES))
    assert [row.updates for row in records(of(second, 0))] == list(range(1, UPDATES + 1))
    assert of(second, 0)[-1] == Ended()
    assert not any(isinstance(event, Checkpoint) for _, event in second)
    control = Control(lambda: True)  # asked for at once, a resumed run has nothing to add
    states = [stored(of(events(configs, interrupt=4), number)[-1]) for number in range(count)]
    third = list(DIGITS.run(configs, states, control, Hardware(device="cpu")))
    assert [(type(event), event.updates) for _, event in third if isinstance(event, Checkpoint)] == [
        (Checkpoint, 4)
    ] * count
    assert len(third) == count


def test_runs_at_other_updates_are_not_resumed_together() -> None:
    configs = STACKED["optimizer 0"][:2]
    state = stored(of(events(configs, interrupt=3), 0)[-1])
    with pytest.raises(ConfigError, match=r"runs at \[0, 3\] updates cannot be resumed together"):
        events(configs, [state, None])


@pytest.mark.parametrize("interrupt", [None, 3])
def test_a_run_that_diverges_ends_and_the_others_never_notice(interrupt: int | None) -> None:
    configs = STACKED["optimizer 1"]
    wild = dataclasses.replace(configs[1], optimizer=dataclasses.replace(configs[1].optimizer, learning_rate=1e30))
    said = events([configs[0], wild, configs[2]], interrupt=interrupt)
    ended = of(said, 1)[-1]
    assert isinstance(ended, Ended)
    assert (ended.status, records(of(said, 1))[0].updates) == ("diverged", 0)
    assert "no longer finite" in ended.note
    assert of(events([wild]), 0)[-1] == ended
    if interrupt is None:
        for number in (0, 2):
            require_same(records(of(said, number)), records(of(whole("stacked optimizer 1"), number)), 1e-5)
