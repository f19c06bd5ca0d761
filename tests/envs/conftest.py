from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rl_scaling.envs import AtariVector, atari
from rl_scaling.envs.config import AtariConfig

from .reference import Recorder


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Let every AtariVector record what its emulators say."""
    made: list[Recorder] = []
    monkeypatch.setattr(Recorder, "made", made, raising=False)
    monkeypatch.setattr(atari, "AtariVectorEnv", Recorder)
    return made


@pytest.fixture
def open_atari() -> Iterator[Callable[..., AtariVector]]:
    """Make AtariVectors that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(game: str = "Breakout", num_envs: int = 2, num_threads: int | None = 2, **options: Any) -> AtariVector:
            of_vector = {name: options.pop(name) for name in ("progress", "episode_emulator_frames") if name in options}
            config = AtariConfig(game=game, num_envs=num_envs, **{"max_start_steps": 0, **options})
            vector = AtariVector(config, num_threads=num_threads, **of_vector)
            stack.callback(vector.close)
            return vector

        yield make
