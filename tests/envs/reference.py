"""Naive versions: one game on the bare emulator, pixel by pixel, and a recorder of what the vector emulator says."""

from __future__ import annotations

from typing import Any

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode
from ale_py.roms import get_rom_path
from ale_py.vector_env import AtariVectorEnv

from rl_scaling.envs import AtariVector, Transition


def area_weights(out: int, size: int) -> np.ndarray:
    """(out, size): the share of each input pixel in each output pixel when an axis is shrunk by area."""
    low = np.arange(out)[:, None] * size / out
    high = (np.arange(out)[:, None] + 1) * size / out
    pixel = np.arange(size)[None]
    return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) * out / size


class PlainGame:
    """One game on `ALEInterface`: four emulator frames per step, the larger of the last two, 84 by 84, four stacked."""

    def __init__(self, rom: str, seed: int) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self.ale = ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.setInt("random_seed", seed)
        self.ale.loadROM(str(get_rom_path(rom)))
        self.actions = self.ale.getMinimalActionSet()
        height, width = self.ale.getScreenDims()
        self.rows, self.columns = area_weights(84, height), area_weights(84, width)

    def shrink(self, screen: np.ndarray) -> np.ndarray:
        return np.rint(self.rows @ screen @ self.columns.T)

    def start(self, emulator_frames: int) -> np.ndarray:
        """A new game, FIRE for one frame, then no-ops up to the given number of emulator frames."""
        self.ale.reset_game()
        for i in range(emulator_frames):
            self.ale.act(Action.FIRE if i == 0 and Action.FIRE in self.actions else Action.NOOP)
        self.stack = [np.zeros((84, 84))] * 3 + [self.shrink(self.ale.getScreenGrayscale())]
        self.lives = self.ale.lives()
        return np.stack(self.stack)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
        """Observation, raw reward, game over, life lost."""
        reward, screens = 0.0, []
        for _ in range(4):
            reward += self.ale.act(self.actions[action])
            screens.append(self.ale.getScreenGrayscale())
            if self.ale.game_over():
                break
        self.stack = [*self.stack[1:], self.shrink(np.maximum(screens[-1], screens[-2] if len(screens) > 1 else 0))]
        lost, self.lives = self.ale.lives() < self.lives, self.ale.lives()
        return np.stack(self.stack), reward, self.ale.game_over(), lost


class Recorder(AtariVectorEnv):
    """The vector emulator, keeping what it was asked and what it said; `made` lists those created."""

    made: list[Recorder]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rom, self.kwargs = args[0], kwargs
        self.seeds: list[int] = []
        self.masks: list[tuple[int, np.ndarray]] = []
        self.steps: list[tuple[np.ndarray, ...]] = []
        self.made.append(self)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed, options=options)
        if seed is not None:
            self.seeds.append(seed)
        if options:
            self.masks.append((len(self.steps), options["reset_mask"].copy()))
        self.last_info = result[1]
        return result

    def recv(self) -> Any:
        result = super().recv()
        _, rewards, ends, truncations, self.last_info = result
        frames = self.last_info["episode_frame_number"]
        self.steps.append((rewards, ends, truncations, self.last_info["lives"], frames))
        return result


def play(vector: AtariVector, steps: int, seed: int = 0) -> list[Transition]:
    random = np.random.default_rng(seed)
    return [vector.step(random.integers(vector.num_actions, size=vector.num_envs)) for _ in range(steps)]


def episodes(transitions: list[Transition]) -> list[tuple[int, int, float, int]]:
    """(step, environment, score, frames) of every game reported."""
    return [
        (t, int(env), float(score), int(frames))
        for t, step in enumerate(transitions)
        for env, score, frames in zip(step.finished, step.episode_scores, step.episode_frames, strict=True)
    ]


def play_from(vector: AtariVector, seed: int, steps: int) -> list[Transition]:
    vector.reset(seed)
    return play(vector, steps)
