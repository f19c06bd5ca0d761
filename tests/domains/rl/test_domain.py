"""Reinforcement learning behind the interface of `Domain`: events, interrupts, checkpoints and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from rl_scaling.agents.config import A2CConfig, PPOConfig, PPOEWMAConfig
from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Checkpoint, Control, Ended, Event, Hardware, Starting
from rl_scaling.domains.rl import domain as module
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.domain import ReinforcementLearning
from rl_scaling.envs import make
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig, MinAtarConfig
from rl_scaling.records import TrainingRecord

CPU = Hardware(device="cpu")
CONFIG = RunConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=4),
    agent=A2CConfig(network="mlp", learning_rate=2e-3),
    noise_scale=NoiseScaleConfig(every_updates=2, groups=4, frame_gradients=2),
    frames=800,
    record_every_frames=200,
)
PPO = dataclasses.replace(CONFIG, agent=PPOConfig(network="mlp", rollout_steps=16, minibatches=2, epochs=2))
OUTER = dataclasses.replace(
    CONFIG, agent=PPOConfig(network="mlp", rollout_steps=16, epochs=2, scaling="minibatch", minibatch_frames=32)
)
EWMA = dataclasses.replace(CONFIG, agent=PPOEWMAConfig(network="mlp", rollout_steps=16, minibatches=2, epochs=2))
ADAPTIVE = dataclasses.replace(
    CONFIG, adaptive=AdaptiveBatchConfig(exchange_rate=1e3, min_envs=4, max_envs=16, group_envs=4)
)
EVERY_KIND = pytest.mark.parametrize(
    "config", [CONFIG, PPO, OUTER, EWMA, ADAPTIVE], ids=["A2C", "PPO", "PPO minibatch", "PPO-EWMA", "adaptive"]
)
PONG = dataclasses.replace(CONFIG, environment=AtariConfig(game="Pong", num_envs=2), agent=A2CConfig(network="small"))


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for every time environments were closed."""
    closings: list[bool] = []
    make = module.make_vector

    def make_watched(*args: Any, **options: Any) -> Any:
        source = make(*args, **options)
        close = source.close

        def close_watched() -> None:
            closings.append(True)
            close()

        source.close = close_watched
        return source

    monkeypatch.setattr(module, "make_vector", make_watched)
    return closings


def events(
    config: RunConfig,
    resume: Checkpoint | None = None,
    *,
    control: Control | None = None,
    on: Callable[[Event, Control], None] = lambda event, control: None,
    hardware: Hardware = CPU,
) -> Iterator[Event]:
    """What a run says; `on` hears it first and may ask for something."""
    control = control or Control()
    state = resume.state if resume else None
    for number, event in ReinforcementLearning().run([config], [state], control, hardware):
        assert number == 0
        on(event, control)
        yield event


def records(events: list[Event]) -> list[TrainingRecord]:
    return [event for event in events if isinstance(event, TrainingRecord)]


def on_record(ask: Callable[[Control], None], count: int = 1) -> Callable[[Event, Control], None]:
    """Ask for something at the record of that number."""
    seen: list[Event] = []

    def on(event: Event, control: Control) -> None:
        if isinstance(event, TrainingRecord):
            seen.append(event)
            if len(seen) == count:
                ask(control)

    return on


def interrupt(control: Control) -> None:
    control.interrupt = True


def interrupted(config: RunConfig) -> tuple[list[TrainingRecord], Checkpoint]:
    """A run that is interrupted behind its second record."""
    *said, checkpoint = events(config, on=on_record(interrupt, 2))
    assert isinstance(checkpoint, Checkpoint)
    return records(said), checkpoint


def test_a_run_says_its_records_and_that_it_is_done(closed: list[bool]) -> None:
    said = list(events(CONFIG))
    assert said[-1] == Ended()
    assert [type(event) for event in said[:-1]] == [TrainingRecord] * (len(said) - 1)
    assert records(said)[-1].frames >= CONFIG.frames
    assert closed == [True]


@EVERY_KIND
def test_an_interrupt_is_heard_within_the_update_however_far_the_next_record(config: RunConfig) -> None:
    config = dataclasses.replace(config, frames=10**9, record_every_frames=10**9)
    looks = itertools.count()
    soon = Control(lambda: next(looks) > 8)
    record, checkpoint = (e for e in events(config, control=soon) if not isinstance(e, Starting))
    assert isinstance(record, TrainingRecord)
    assert isinstance(checkpoint, Checkpoint)
    assert 0 < record.updates <= 9 * config.agent.updates_per_rollout
    assert checkpoint.updates == record.updates


def test_an_interrupt_before_the_first_update_leaves_what_was_there() -> None:
    said, checkpoint = interrupted(CONFIG)
    again = list(events(CONFIG, checkpoint, control=Control(lambda: True)))
    assert [event.updates for event in again if isinstance(event, Checkpoint)] == [said[-1].updates]
    assert len(again) == 1


@EVERY_KIND
def test_a_resumed_run_continues_and_says_nothing_twice(config: RunConfig, closed: list[bool]) -> None:
    before, checkpoint = interrupted(config)
    assert checkpoint.updates == before[-1].updates
    said = list(events(config, checkpoint))
    rest = records(said)
    assert said[-1] == Ended()
    assert rest[0].updates > before[-1].updates
    assert rest[0].frames > before[-1].frames
    assert rest[0].wall_seconds > before[-1].wall_seconds
    assert rest[-1].frames >= config.frames
    assert rest[-1].frames_used == rest[-1].frames * config.agent.frame_uses
    assert closed == [True, True]


def test_a_checkpoint_can_be_stored_and_does_not_change_as_training_continues(tmp_path: Any) -> None:
    run = events(CONFIG, on=on_record(lambda control: setattr(control, "checkpoint", True)))
    checkpoint = next(event for event in run if isinstance(event, Checkpoint))
    torch.save(checkpoint.state, tmp_path / "state")
    assert [type(event) for event in run].count(Checkpoint) == 0, "it was asked for once"
    stored = torch.load(tmp_path / "state", weights_only=True)
    weights = "policy_head.weight"
    for state in (checkpoint.state, stored):
        torch.testing.assert_close(
            state["learner"]["network"][weights], stored["learner"]["network"][weights], rtol=0, atol=0
        )
    first = list(events(CONFIG, Checkpoint(checkpoint.updates, stored)))
    second = list(events(CONFIG, Checkpoint(checkpoint.updates, stored)))
    assert [r.policy_loss for r in records(first)] == [r.policy_loss for r in records(second)]


def test_a_stopped_run_leaves_a_checkpoint_behind_its_record() -> None:
    *said, checkpoint = events(CONFIG, on=on_record(lambda control: control.stop.add(0), 2))
    assert len(records(said)) == 2
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.updates == records(said)[-1].updates


def test_a_run_that_is_over_is_done_whatever_is_asked() -> None:
    config = dataclasses.replace(CONFIG, record_every_frames=10**9)
    record, end = events(config, on=on_record(interrupt))
    assert isinstance(record, TrainingRecord)
    assert end == Ended()


def test_divergence_is_an_end(closed: list[bool]) -> None:
    agent = dataclasses.replace(CONFIG.agent, learning_rate=1e30, max_grad_norm=1e38)
    said = list(events(dataclasses.replace(CONFIG, agent=agent), on=on_record(interrupt)))
    last, end = said[-2:]
    assert isinstance(last, TrainingRecord)
    assert not (math.isfinite(last.grad_norm) and math.isfinite(last.value_loss))
    assert isinstance(end, Ended)
    assert end.status == "diverged"
    assert "not finite after" in end.note
    assert closed == [True]


def test_who_stops_listening_closes_the_environments(closed: list[bool]) -> None:
    run = ReinforcementLearning().run([CONFIG], [None], Control(), CPU)
    next(run)
    assert closed == []
    run.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert closed == [True]


def test_environments_say_how_far_their_start_is_and_it_can_be_left(closed: list[bool]) -> None:
    said = list(events(dataclasses.replace(PONG, frames=20, record_every_frames=20)))
    starts = [event for event in said if isinstance(event, Starting)]
    assert said[: len(starts)] == starts
    assert starts[0] == Starting(0, 4)
    assert starts[-1] == Starting(4, 4)
    assert closed == [True]
    left = list(events(PONG, on=lambda event, control: interrupt(control)))
    assert left == [Starting(0, 4)]
    run = ReinforcementLearning().run([PONG], [None], Control(), CPU)
    assert next(run) == (0, Starting(0, 4))
    run.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_hardware_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(PONG, frames=20, record_every_frames=20)
    plain, rounded = (
        records(list(events(config, hardware=Hardware(device="cpu", compute_dtype=dtype))))[0]
        for dtype in ("float32", "bfloat16")
    )
    assert rounded.value_loss != plain.value_loss
    assert rounded.value_loss == pytest.approx(plain.value_loss, rel=0.2)
    asked: dict[str, Any] = {}

    def refuse(*args: Any, **options: Any) -> Any:
        asked.update(options)
        raise ConfigError("not now")

    monkeypatch.setattr(module, "make_vector", refuse)
    with pytest.raises(ConfigError, match="not now"):
        list(events(config, hardware=Hardware(device="cpu", threads=1, alternate=True)))
    assert (asked["alternate"], asked["num_threads"], asked["group_envs"]) == (True, 1, None)


@pytest.mark.parametrize(
    ("config", "hardware", "message"),
    [
        (CONFIG, Hardware(device="quantum"), "there is no device 'quantum'"),
        (ADAPTIVE, Hardware(device="cpu", alternate=True), "cannot change in number"),
        (dataclasses.replace(CONFIG, environment=GymnasiumConfig(env_id="Nothing-v9")), CPU, "no environment"),
    ],
    ids=["device", "alternate", "environment"],
)
def test_what_cannot_be_run_is_refused_before_anything_is_said(
    config: RunConfig, hardware: Hardware, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        next(events(config, hardware=hardware))


def test_refusals_of_a_sweep() -> None:
    domain = ReinforcementLearning()
    domain.refuse([CONFIG, PONG], CPU, side_by_side=2)
    huge = dataclasses.replace(PONG, environment=AtariConfig(game="Pong", num_envs=10**7))
    with pytest.raises(ConfigError, match="GB of memory"):
        domain.refuse([CONFIG, huge], CPU, side_by_side=1)
    with pytest.raises(ConfigError, match="cannot change in number"):
        domain.refuse([ADAPTIVE], Hardware(device="cpu", alternate=True), side_by_side=1)
    with pytest.raises(ConfigError, match="there is no device"):
        domain.refuse([CONFIG], Hardware(device="quantum"), side_by_side=1)
    assert CONFIG.length == CONFIG.frames
    assert domain.together([CONFIG, PPO]) == [[CONFIG], [PPO]]


def test_without_minatar_a_run_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(make, "find_spec", lambda name: None if name == "minatar" else found(name))
    game = MinAtarConfig(game="breakout", num_envs=4)
    config = dataclasses.replace(CONFIG, environment=game, agent=A2CConfig(network="minatar"))
    with pytest.raises(ConfigError, match=r"minatar/breakout needs MinAtar: pip install 'rl-scaling\[minatar\]'"):
        ReinforcementLearning().refuse([CONFIG, config], CPU, 1)
    ReinforcementLearning().refuse([CONFIG], CPU, 1)
