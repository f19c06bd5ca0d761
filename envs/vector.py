"""What every source of experience gives the learner, whatever runs underneath."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

# Hears (done, total) while environments start.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Transition:
    """What one step of all n environments gives the learner.

    The arrays are the caller's own: nobody writes to them again.

    Attributes:
        observations: (n, *observation_shape) uint8 pixels or float32: what to act on next. Where `truncated` it is the
            true last observation of the game that was cut, so that its value may be bootstrapped from.
        rewards: (n,) float32, for learning: the sign of the raw reward on Atari, the raw reward elsewhere.
        terminated: (n,) bool: the return ends here; no bootstrapping across this step.
        truncated: (n,) bool: a time limit cut the game; bootstrap from `observations`, then cut the return. Never
            together with `terminated`.
        valid: (n,) bool: False where the step only reset the environment and the action was ignored. Such a step
            belongs in no batch, no loss and no count; its reward is 0 and its flags are False.
        finished: (m,) int64: the environments whose game really ended at this step, with
        episode_scores: (m,) float64, the sums of their raw rewards, and
        episode_frames: (m,) int64, their lengths in agent steps.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    finished: np.ndarray
    episode_scores: np.ndarray
    episode_frames: np.ndarray


class VectorSource(ABC):
    """n copies of one environment, stepped together.

    An environment whose game ended ignores its next action: that step resets it and is marked not `valid`.

    Attributes:
        num_envs: n, the copies.
        num_actions: actions are the integers from 0 to num_actions - 1; 0 where `action_space` is not `Discrete`.
        observation_shape: the shape of one environment's observation.
    """

    num_envs: int
    num_actions: int
    observation_shape: tuple[int, ...]

    @property
    def action_space(self) -> Space[Any]:
        """What one environment's action is: `Discrete`, or a `MultiDiscrete`, `MultiBinary` or `Box` in one dimension.

        Numbered actions begin at 0. Those of a `Box` may lie outside of it: the source clips them.
        """
        return Discrete(self.num_actions)

    @abstractmethod
    def reset(self, seed: int) -> np.ndarray:
        """Start every environment anew.

        Args:
            seed: 0 or more; the same seed and the same actions give the same transitions.

        Returns:
            (n, *observation_shape) the observations to act on first.

        Raises:
            ConfigError: a negative seed.
            RuntimeError: closed, or between `send` and `recv`.
        """

    @abstractmethod
    def step(self, actions: np.ndarray) -> Transition:
        """Take one step in every environment.

        Args:
            actions: (n,) integers, or (n, d) as `action_space` says; those of environments that are about to be reset
                are ignored, but must be in range.

        Raises:
            ValueError: actions of another shape or type, or out of range.
            RuntimeError: not reset yet, or closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what is held; closing twice is harmless."""


def check_actions(actions: object, num_envs: int, space: int | Space[Any]) -> None:
    """Refuse actions that an emulator might hang on.

    Args:
        actions: what is to be checked.
        num_envs: n.
        space: the number of actions, or a source's `action_space`.

    Raises:
        ValueError: not an (n,) array of integers from 0 to num_actions - 1, or not (n, d) numbers of the space.
    """
    shape = () if isinstance(space, int) else space.shape or ()
    kinds, numbers = ("f", "floating-point numbers") if isinstance(space, Box) else ("iu", "integers")
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in kinds:
        given = actions.dtype if isinstance(actions, np.ndarray) else type(actions).__name__
        raise ValueError(f"actions are {given}: give a numpy array of {numbers}")
    if actions.shape != (num_envs, *shape):
        each = "one" if not shape else str(shape[0])
        raise ValueError(f"actions have the shape {actions.shape}: give {each} per environment, {(num_envs, *shape)}")
    if isinstance(space, Box):
        return
    counts = np.broadcast_to(_counts(space), actions.shape)
    if actions.min() < 0 or (actions >= counts).any():
        place = np.unravel_index(np.argmax((actions < 0) | (actions >= counts)), actions.shape)
        raise ValueError(f"there is no action {actions[place]}: give actions from 0 to {counts[place] - 1}")


def _counts(space: int | Space[Any]) -> Any:
    """How many actions to choose from there are, all in all or in each place."""
    if isinstance(space, int):
        return space
    if isinstance(space, Discrete):
        return space.n
    return space.nvec if isinstance(space, MultiDiscrete) else 2


class EpisodeTally:
    """Raw scores and lengths of the games that are being played, one per environment.

    Only games the learner played from their first step to their last are reported.
    """

    def __init__(self, num_envs: int) -> None:
        self.scores = np.zeros(num_envs)
        self.frames = np.zeros(num_envs, np.int64)
        self._whole = np.ones(num_envs, bool)

    def restart(self, mask: np.ndarray) -> None:
        """Begin new games where `mask` (n,) bool is set; games given up are not reported."""
        self.scores[mask] = 0
        self.frames[mask] = 0
        self._whole[mask] = True

    def disown_games_under_way(self) -> None:
        """What has been played so far was not the learner's: games that have begun will not be reported."""
        self._whole = self.frames == 0

    def add(self, raw_rewards: np.ndarray, valid: np.ndarray) -> None:
        """Count one step: (n,) raw rewards, and where the step was one of the game rather than a reset."""
        self.scores += raw_rewards * valid
        self.frames += valid

    def finish(self, ended: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Close the books of the games that ended, (n,) bool.

        Returns:
            `finished`, `episode_scores` and `episode_frames` of a `Transition`.
        """
        if not ended.any():
            return _NOBODY, _NO_SCORES, _NOBODY
        (finished,) = np.nonzero(ended & self._whole)
        report = finished, self.scores[finished], self.frames[finished]
        self.restart(ended)
        return report


_NOBODY = np.zeros(0, np.int64)
_NO_SCORES = np.zeros(0)
