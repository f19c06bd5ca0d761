"""Runs that train side by side say what each says alone, and come and go by themselves."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.domains.base import CannotResume, Checkpoint, Control, Ended, Event, Hardware
from rl_scaling.domains.rl import domain as module
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.domains.rl.domain import ReinforcementLearning
from rl_scaling.domains.rl.stacked import MOST_FRAMES, alike, can_stack
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig
from rl_scaling.records import TrainingRecord

A2C = RunConfig(
    environment=GymnasiumConfig(env_id="CartPole-v1", num_envs=4),
    agent=A2CConfig(network="mlp"),
    noise_scale=NoiseScaleConfig(every_updates=5, groups=4, frame_gradients=3, parts=True),
    frames=1_000,
    record_every_frames=300,
)
PPO = dataclasses.replace(
    A2C,
    agent=PPOConfig(network="mlp", rollout_steps=16, minibatches=2, epochs=2, clip_range_schedule="linear"),
    noise_scale=NoiseScaleConfig(every_updates=4, groups=4, frame_gradients=3, parts=True),
)
BOTH = pytest.mark.parametrize("base", [A2C, PPO], ids=["A2C", "PPO"])
CPU = Hardware(device="cpu")
Ask = Callable[[int, Event, Control], None]


def runs(base: RunConfig, count: int = 3) -> list[RunConfig]:
    """Of one batch size, with rates and seeds of their own."""
    rates = [3e-4 * 2**number for number in range(count)]
    return [
        dataclasses.replace(base, seed=seed, agent=dataclasses.replace(base.agent, learning_rate=rate))
        for seed, rate in enumerate(rates)
    ]


def trained(
    configs: Sequence[RunConfig],
    resume: Sequence[Mapping[str, Any] | None] | None = None,
    on: Ask = lambda number, event, control: None,
) -> dict[int, list[Event]]:
    """What each run says; `on` hears it first and may ask for something."""
    said: dict[int, list[Event]] = {number: [] for number in range(len(configs))}
    control = Control()
    states = resume or [None] * len(configs)
    for number, event in ReinforcementLearning().run(configs, states, control, CPU):
        said[number].append(event)
        on(number, event, control)
    return said


def records(events: Sequence[Event]) -> list[TrainingRecord]:
    return [event for event in events if isinstance(event, TrainingRecord)]


def require_equal(found: Sequence[Event], wanted: Sequence[Event]) -> None:
    """Equal but for the clock, and rounding."""
    ours, theirs = records(found), records(wanted)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        for name, value in dataclasses.asdict(one).items():
            if name not in ("wall_seconds", "frames_per_second"):
                assert value == pytest.approx(getattr(other, name), rel=1e-3, abs=1e-5, nan_ok=True), name


@BOTH
def test_each_says_what_it_says_alone(base: RunConfig) -> None:
    configs = runs(base)
    together = trained(configs)
    for number, config in enumerate(configs):
        alone = trained([config])[0]
        require_equal(together[number], alone)
        assert together[number][-1] == alone[-1] == Ended()
    seen = records(together[0])
    assert sum(record.noise_measurements for record in seen) > 2
    assert any(math.isfinite(record.policy_trace_cov) for record in seen)
    assert base is A2C or any(math.isfinite(record.reuse_trace_cov) for record in seen)


@BOTH
def test_checkpoints_are_those_of_runs_alone_and_runs_of_any_update_go_on_together(base: RunConfig) -> None:
    """Each is stopped at a record of its own; from there it goes on alone, and together with the others."""
    configs = runs(base)

    def stop(number: int, event: Event, control: Control) -> None:
        if isinstance(event, TrainingRecord) and event.frames >= 300 * number:
            control.stop.add(number)

    stopped = trained(configs, on=stop)
    checkpoints = [said[-1] for said in stopped.values()]
    states = []
    for checkpoint, said in zip(checkpoints, stopped.values(), strict=True):
        assert isinstance(checkpoint, Checkpoint)
        assert checkpoint.updates == records(said)[-1].updates
        states.append(checkpoint.state)
    assert len({state["progress"]["updates"] for state in states}) > 1, "they are out of step"
    together = trained(configs, states)
    for number, (config, state) in enumerate(zip(configs, states, strict=True)):
        alone = trained([config], [state])[0]
        require_equal(together[number], alone)
        assert together[number][-1] == Ended()


@BOTH
def test_a_checkpoint_of_a_run_alone_is_one_of_a_run_among_others(base: RunConfig) -> None:
    configs = runs(base)
    of_all = trained(configs, on=interrupt)
    for number, config in enumerate(configs):
        *_, checkpoint = trained([config], on=interrupt)[0]
        assert isinstance(checkpoint, Checkpoint)
        ours = of_all[number][-1]
        assert isinstance(ours, Checkpoint)
        ours_flat, theirs_flat = (leaves(c.state["learner"]) for c in (ours, checkpoint))
        assert ours_flat.keys() == theirs_flat.keys()
        for name, value in theirs_flat.items():
            torch.testing.assert_close(ours_flat[name], value, rtol=1e-4, atol=1e-6, msg=name)


def interrupt(number: int, event: Event, control: Control) -> None:
    control.interrupt = True


def last_checkpoint(events: Sequence[Event]) -> Checkpoint:
    assert isinstance(events[-1], Checkpoint)
    return events[-1]


def bytes_of(checkpoint: Checkpoint) -> int:
    """In a file."""
    file = io.BytesIO()
    torch.save(dict(checkpoint.state), file)
    return file.tell()


@BOTH
def test_a_checkpoint_is_as_large_among_others_as_alone(base: RunConfig) -> None:
    """Weights in a stack are parts of tensors that hold those of all runs: none of the others' may be saved."""
    configs = runs(base, 5)
    alone = bytes_of(last_checkpoint(trained(configs[:1], on=interrupt)[0]))
    for said in trained(configs, on=interrupt).values():
        assert bytes_of(last_checkpoint(said)) == pytest.approx(alone, rel=0.02)


@BOTH
def test_a_checkpoint_of_another_run_keeps_that_run_alone_from_beginning(base: RunConfig) -> None:
    """Of another network, of another optimiser, and of no such run at all."""
    configs = runs(base, 5)
    states = [last_checkpoint(said).state for said in trained(configs, on=interrupt).values()]
    learner = dict(states[1]["learner"])
    wider = {name: torch.cat([weights, weights]) for name, weights in learner["network"].items()}
    adam = PPO if base is A2C else A2C
    (other,) = trained([adam], on=interrupt).values()
    of_optimizer = {**states[2]["learner"], "optimizer": last_checkpoint(other).state["learner"]["optimizer"]}
    found: list[Mapping[str, Any]] = [
        states[0],
        {**states[1], "learner": {**learner, "network": wider}},
        {**states[2], "learner": of_optimizer},
        {"model": 1},
        states[4],
    ]
    together = trained(configs, found)
    for number in (1, 2, 3):
        assert together[number] == [CannotResume()], number
    for number in (0, 4):
        require_equal(together[number], trained([configs[number]], [states[number]])[0])
        assert together[number][-1] == Ended()


def leaves(state: Any, path: str = "") -> dict[str, torch.Tensor]:
    if isinstance(state, Mapping):
        pairs = state.items()
    elif isinstance(state, list | tuple):
        pairs = enumerate(state)
    else:
        is_number = isinstance(state, torch.Tensor | float | int)
        return {path: torch.as_tensor(state)} if is_number else {}
    return {name: leaf for key, value in pairs for name, leaf in leaves(value, f"{path}.{key}").items()}


@BOTH
def test_an_interrupt_is_heard_at_the_next_update_by_all(base: RunConfig) -> None:
    base = dataclasses.replace(base, frames=10**9, record_every_frames=10**9)
    looks = iter(range(10**9))
    control = Control(lambda: next(looks) > 2)
    said: dict[int, list[Event]] = {0: [], 1: [], 2: []}
    for number, event in ReinforcementLearning().run(runs(base), [None] * 3, control, CPU):
        said[number].append(event)
    for events in said.values():
        record, checkpoint = events
        assert isinstance(record, TrainingRecord)
        assert isinstance(checkpoint, Checkpoint)
        assert 0 < record.updates == checkpoint.updates <= 4 * base.agent.updates_per_rollout
        assert checkpoint.state["progress"]["frames"] == record.frames


def test_interrupted_before_the_first_update_each_leaves_what_was_there() -> None:
    control = Control(lambda: True)
    events = list(ReinforcementLearning().run(runs(A2C), [None] * 3, control, CPU))
    assert [number for number, _ in events] == [0, 1, 2]
    assert all(isinstance(event, Checkpoint) and event.updates == 0 for _, event in events)


@BOTH
def test_a_run_that_diverges_ends_and_the_others_never_notice(base: RunConfig) -> None:
    configs = runs(base)
    wild = dataclasses.replace(base.agent, learning_rate=1e30, max_grad_norm=1e38)
    tame = [dataclasses.replace(c.agent, max_grad_norm=1e38) for c in configs]
    configs = [dataclasses.replace(c, agent=agent) for c, agent in zip(configs, [tame[0], wild, tame[2]], strict=True)]
    together = trained(configs)
    end = together[1][-1]
    assert isinstance(end, Ended)
    assert end.status == "diverged"
    for number in (0, 2):
        require_equal(together[number], trained([configs[number]])[0])
        assert together[number][-1] == Ended()


def test_checkpoints_are_taken_of_all_at_their_next_records_and_training_goes_on() -> None:
    asked: list[int] = []

    def ask(number: int, event: Event, control: Control) -> None:
        if isinstance(event, TrainingRecord) and not asked:
            asked.append(number)
            control.checkpoint = True

    configs = runs(A2C)
    together = trained(configs, on=ask)
    for number, config in enumerate(configs):
        kinds = [type(event) for event in together[number]]
        assert kinds.count(Checkpoint) == 1
        place = kinds.index(Checkpoint)
        assert kinds[place - 1] is TrainingRecord
        require_equal(together[number], trained([config])[0])


@pytest.mark.parametrize("count", [1, 3])
def test_a_checkpoint_asked_for_at_the_last_record_comes_before_the_end(count: int) -> None:
    """Of a run alone and of runs side by side: the weights at the end are kept by it."""

    def ask(number: int, event: Event, control: Control) -> None:
        control.checkpoint = control.checkpoint or isinstance(event, TrainingRecord)

    configs = runs(A2C, count)
    for said, config in zip(trained(configs, on=ask).values(), configs, strict=True):
        *_, record, checkpoint, end = said
        assert isinstance(record, TrainingRecord)
        assert isinstance(checkpoint, Checkpoint)
        assert end == Ended()
        assert checkpoint.state["progress"]["frames"] == record.frames >= config.frames


def test_seconds_are_shares_of_the_time() -> None:
    """So that what is added up over runs is what a core did."""
    together = trained(runs(A2C))
    for said in together.values():
        last = records(said)[-1]
        assert last.wall_seconds > 0
        assert last.frames_per_second > 0
    seconds = [records(said)[-1].wall_seconds for said in together.values()]
    assert max(seconds) < 2 * min(seconds)


def test_what_trains_side_by_side() -> None:
    domain = ReinforcementLearning()
    configs = runs(A2C)
    assert len({domain.job_key(config) for config in configs}) == 1
    assert domain.together(configs) == [configs]
    assert alike(configs[0]) == alike(configs[2])
    large = dataclasses.replace(A2C, environment=dataclasses.replace(A2C.environment, num_envs=MOST_FRAMES["mlp"]))
    adaptive = AdaptiveBatchConfig(exchange_rate=1e3, min_envs=4, max_envs=8, group_envs=4)
    for alone in (
        large,
        dataclasses.replace(A2C, adaptive=adaptive),
        dataclasses.replace(A2C, environment=AtariConfig(game="Pong", num_envs=4)),
        dataclasses.replace(A2C, agent=A2CConfig(network="nature")),
        dataclasses.replace(A2C, agent=PPOConfig(network="mlp", scaling="minibatch")),
        dataclasses.replace(A2C, environment=GymnasiumConfig(env_id="Pendulum-v1", num_envs=4)),  # a Gaussian's width
        dataclasses.replace(A2C, environment=GymnasiumConfig(env_id="Nothing-v9", num_envs=4)),
    ):
        assert not can_stack(alone)
        assert domain.job_key(alone) == alone.run_id
        pair = runs(alone, 2)
        assert domain.together(pair) == [[config] for config in pair]


@pytest.mark.parametrize("hardware", [Hardware(device="cpu", alternate=True), Hardware(compute_dtype="bfloat16")])
def test_where_passes_are_made_in_another_way_each_trains_alone(hardware: Hardware) -> None:
    assert len(ReinforcementLearning().together(runs(A2C), hardware)) == 3


def test_several_runs_that_train_side_by_side_settle_for_float32() -> None:
    hardware, said = ReinforcementLearning().settled(runs(A2C), Hardware(device="cpu", compute_dtype="auto"))
    assert hardware.compute_dtype == "float32"
    assert said == ["layers compute in float32: small runs train side by side in it"]


@pytest.mark.parametrize("kept", [slice(0, 1), slice(0, 2)], ids=["one run", "one of a batch size each"])
def test_runs_of_which_none_has_company_do_not(kept: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    require_judged(
        [A2C, dataclasses.replace(A2C, environment=GymnasiumConfig(env_id="CartPole-v1"))][kept], monkeypatch
    )


@pytest.mark.parametrize("elsewhere", [{"device": "cuda"}, {"alternate": True}], ids=str)
def test_nor_do_those_that_train_alone_where_they_are(
    elsewhere: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "choose_device", torch.device)
    require_judged(runs(A2C), monkeypatch, **elsewhere)


def require_judged(configs: Sequence[RunConfig], monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """What these compute in is left to be tried out."""
    judged: tuple[Hardware, list[str]] = (CPU, ["judged"])
    monkeypatch.setattr("rl_scaling.domains.rl.precision.settle_precision", lambda configs, hardware: judged)
    hardware = Hardware(**{"device": "cpu", "compute_dtype": "auto", **options})
    assert ReinforcementLearning().settled(configs, hardware) == judged


def test_what_is_looked_at_to_decide_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    assert can_stack(dataclasses.replace(A2C, environment=GymnasiumConfig(env_id="Acrobot-v1", num_envs=4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_where_networks_cannot_be_stacked_runs_train_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rl_scaling.domains.rl.domain.why_no_stack", lambda agent: "it is of another kind")
    configs, order = runs(A2C), list[int]()

    def stop_the_second(number: int, event: Event, control: Control) -> None:
        order.append(number)
        if number == 1:
            control.stop.add(1)

    said = trained(configs, on=stop_the_second)
    assert order == sorted(order)
    assert said[0][-1] == said[2][-1] == Ended()
    assert isinstance(said[1][-1], Checkpoint)
    assert len(records(said[1])) == 1
    require_equal(said[2], trained([configs[2]])[0])
