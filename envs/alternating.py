"""Two halves of a number of environments that are stepped in turns: one is emulated while the other is acted on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rl_scaling.config import ConfigError
from rl_scaling.envs.atari import AtariVector, Progress
from rl_scaling.envs.config import EnvironmentConfig
from rl_scaling.envs.grouped import GroupedVector
from rl_scaling.envs.vector import Transition, VectorSource, check_actions


class AlternatingVector(GroupedVector):
    """Two sources of n/2 environments each that may also be stepped by themselves, with `send` and `recv`.

    Between the two calls Atari's emulators run on their own threads; other environments are stepped by `recv`. What the
    environments do is what they do as two groups of a `GroupedVector`, in whatever order the halves are stepped.
    """

    def __init__(
        self,
        config: EnvironmentConfig,
        make: Callable[[EnvironmentConfig], VectorSource],
        *,
        progress: Progress | None = None,
    ) -> None:
        """Make both halves; arguments as `GroupedVector`.

        Raises:
            ConfigError: an odd number of environments.
        """
        if config.num_envs % 2:
            raise ConfigError(f"{config.num_envs} environments cannot be stepped in two halves: give an even number")
        super().__init__(config, config.num_envs // 2, make, progress=progress)
        self._sent: list[np.ndarray | None] = [None, None]

    @property
    def halves(self) -> tuple[slice, slice]:
        """Which environments the halves 0 and 1 are."""
        return slice(0, self.group_envs), slice(self.group_envs, 2 * self.group_envs)

    def reset(self, seed: int) -> np.ndarray:
        """Start every environment anew: see `VectorSource.reset`."""
        self._expect_nothing_sent()
        return super().reset(seed)

    def resize(self, num_envs: int, seed: int) -> np.ndarray:
        """Halves stay halves.

        Raises:
            ConfigError: another number of environments than there are.
        """
        if num_envs != self.num_envs:
            raise ConfigError("environments that alternate cannot change in number: use a GroupedVector")
        return super().resize(num_envs, seed)

    def step(self, actions: np.ndarray) -> Transition:
        """Take one step in both halves: see `VectorSource.step`."""
        self._expect_nothing_sent()
        return super().step(actions)

    def _expect_nothing_sent(self) -> None:
        if any(sent is not None for sent in self._sent):
            raise RuntimeError("a half was sent its actions: call recv(half) before anything else")

    def send(self, half: int, actions: np.ndarray) -> None:
        """Give one half's environments their actions, (n/2,) integers, and return at once.

        Raises:
            ValueError: actions of another shape or type, or out of range.
            RuntimeError: not reset yet, sent already, or closed.
        """
        if not self._observations or self._sent[half] is not None:
            raise RuntimeError(f"half {half} has not started, is closed or was sent its actions already")
        member = self._members[half]
        check_actions(actions, member.num_envs, self.num_actions)
        if isinstance(member, AtariVector):
            member.send(actions)
        self._sent[half] = actions

    def recv(self, half: int) -> Transition:
        """Wait for the step that `send` began; `finished` counts within the half.

        Raises:
            RuntimeError: nothing was sent, or closed.
        """
        actions = self._sent[half]
        if actions is None:
            raise RuntimeError(f"nothing was sent to half {half}: call send(half, actions) before recv(half)")
        member = self._members[half]
        transition = member.recv() if isinstance(member, AtariVector) else member.step(actions)
        self._sent[half] = None
        self._observations[half] = transition.observations
        return transition

    def close(self) -> None:
        """Free both halves; closing twice is harmless."""
        super().close()
        self._sent = [None, None]
