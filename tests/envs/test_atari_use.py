from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from ale_py.roms import get_rom_path

from rl_scaling.config import ConfigError
from rl_scaling.envs import AtariVector, atari, available_cpus
from rl_scaling.envs.config import AtariConfig

from .reference import Recorder, episodes, play, play_from


@pytest.mark.parametrize(
    "actions",
    [
        np.array([0, 4]),
        np.array([-1, 0]),
        np.array([0]),
        np.array([[0, 0]]),
        np.array([0.0, 1.0]),
        np.array([True, False]),
        np.array([2**40, 0]),
        [0, 1],
        3,
    ],
)
def test_invalid_actions_are_refused_in_one_line_and_change_nothing(actions: Any, breakout: AtariVector) -> None:
    with pytest.raises(ValueError, match="actions") as caught:
        breakout.send(actions)
    assert "\n" not in str(caught.value)
    assert breakout.step(np.array([0, 3])).valid.all()


@pytest.fixture(scope="module")
def breakout() -> Iterator[AtariVector]:
    vector = AtariVector(AtariConfig(game="Breakout", num_envs=2, max_start_steps=0), num_threads=1)
    vector.reset(0)
    yield vector
    vector.close()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_any_integers_will_do_as_actions(dtype: type, breakout: AtariVector) -> None:
    assert breakout.step(np.array([0, 9, 3, 9], dtype)[::2]).valid.all()


def test_send_and_recv_must_alternate(breakout: AtariVector) -> None:
    with pytest.raises(RuntimeError, match="send"):
        breakout.recv()
    breakout.send(np.array([0, 0]))
    for forbidden in (
        lambda: breakout.send(np.array([0, 0])),
        lambda: breakout.reset(0),
        lambda: breakout.step(np.array([0, 0])),
    ):
        with pytest.raises(RuntimeError, match="recv"):
            forbidden()
    assert breakout.recv().valid.all()


def test_send_and_recv_are_step(breakout: AtariVector) -> None:
    breakout.reset(0)
    actions = np.random.default_rng(0).integers(4, size=(50, 2))
    stepped = [breakout.step(now).observations for now in actions]
    breakout.reset(0)
    for now, expected in zip(actions, stepped, strict=True):
        breakout.send(now)
        assert np.array_equal(breakout.recv().observations, expected)


def test_nothing_works_before_reset_or_after_close(open_atari: Callable[..., AtariVector]) -> None:
    vector = open_atari()
    with pytest.raises(RuntimeError, match="reset"):
        vector.step(np.array([0, 0]))
    with pytest.raises(RuntimeError, match="reset"):
        vector.recv()
    vector.close()
    vector.close()
    for use in (lambda: vector.reset(0), lambda: vector.step(np.array([0, 0])), vector.recv):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_an_interrupted_step_is_never_continued(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(atari.AtariVectorEnv):
        def recv(self) -> Any:
            super().recv()
            raise KeyboardInterrupt

    monkeypatch.setattr(atari, "AtariVectorEnv", Interrupted)
    vector = open_atari()
    vector.reset(0)
    with pytest.raises(KeyboardInterrupt):
        vector.step(np.array([0, 0]))
    for use in (lambda: vector.reset(0), lambda: vector.step(np.array([0, 0])), vector.recv):
        with pytest.raises(RuntimeError, match="interrupted"):
            use()
    vector.close()


def test_closing_and_leaving_between_send_and_recv_do_not_hang() -> None:
    code = """
import numpy as np
from rl_scaling.envs.config import AtariConfig
from rl_scaling.envs import AtariVector
for close in (True, True, False):
    vector = AtariVector(AtariConfig(game="Pong", num_envs=2, max_start_steps=0), num_threads=2)
    vector.reset(0)
    vector.send(np.zeros(2, int))
    if close:
        vector.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_was_returned_is_the_callers_own(open_atari: Callable[..., AtariVector]) -> None:
    vector = open_atari(episode_emulator_frames=40)
    first = vector.reset(0)
    kept, copies = [first], [first.copy()]
    for step in play(vector, 30):
        for array in vars(step).values():
            assert array.flags.writeable  # torch warns of arrays that are not
            kept.append(array)
            copies.append(array.copy())
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_progress_grows_from_nothing_to_all(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atari, "ENVS_PER_POOL", 2)
    told: list[tuple[int, int]] = []
    vector = open_atari(num_envs=5, max_start_steps=20, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 10)
    assert len(told) == 4  # once per pool
    assert told[-1] == (5, 10)
    vector.reset(0)
    done = [d for d, _ in told]
    assert done == sorted(set(done))
    assert told[-1] == (10, 10)


@pytest.mark.parametrize(("asked", "num_envs", "given"), [(None, 2, min(2, available_cpus())), (1, 2, 1), (9, 2, 2)])
def test_threads_are_never_more_than_cpus_or_environments(
    asked: int | None, num_envs: int, given: int, open_atari: Callable[..., AtariVector], recorders: list[Recorder]
) -> None:
    assert open_atari(num_envs=num_envs, num_threads=asked).num_threads == given
    assert recorders[0].kwargs["num_threads"] == given


def test_the_config_reaches_the_emulator(open_atari: Callable[..., AtariVector], recorders: list[Recorder]) -> None:
    open_atari("Q*bert", num_envs=1, sticky_action_probability=0.25, frame_skip=3)
    kwargs = recorders[0].kwargs
    assert recorders[0].rom == "qbert"
    assert (kwargs["repeat_action_probability"], kwargs["frameskip"]) == (0.25, 3)


def test_the_time_limit_is_in_emulator_frames(open_atari: Callable[..., AtariVector]) -> None:
    steps = play_from(open_atari("Pong", num_envs=1, frame_skip=3, episode_emulator_frames=40), 0, 30)
    assert [e[3] for e in episodes(steps)] == [14, 14]  # 40 / 3, rounded up
    assert [t for t, s in enumerate(steps) if s.truncated[0]] == [13, 28]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "Braekout"}, "nearest: Breakout"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"episode_emulator_frames": 0}, "episode_emulator_frames is 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    options: dict[str, Any], message: str, open_atari: Callable[..., AtariVector]
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_atari(**options)
    assert "\n" not in str(caught.value)


def test_a_negative_seed_is_refused(breakout: AtariVector) -> None:
    with pytest.raises(ConfigError, match="seed is -1"):
        breakout.reset(-1)


def test_nothing_is_printed_to_standard_output(
    open_atari: Callable[..., AtariVector], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What programs read there must stay clean, and ale-py announces where it looks for ROMs."""
    rom = get_rom_path("pong")
    assert rom is not None
    monkeypatch.setenv("ALE_ROMS_DIR", str(rom.parent))
    open_atari("Pong").reset(0)
    assert capfd.readouterr().out == ""
