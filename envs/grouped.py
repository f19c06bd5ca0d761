"""Sources made of sources: groups that are added and retired while the others play on, and halves stepped in turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from rl_scaling.config import ConfigError
from rl_scaling.envs.atari import AtariVector
from rl_scaling.envs.config import EnvironmentConfig
from rl_scaling.envs.vector import Progress, Transition, VectorSource, check_actions


class GroupedVector(VectorSource):
    """A source made of sources of `group_envs` environments each, the oldest first.

    `resize` adds groups, which begin new games, or retires the newest ones, whose games under way are given up and not
    scored. The games of all other environments continue undisturbed.
    """

    def __init__(
        self,
        config: EnvironmentConfig,
        group_envs: int,
        make: Callable[[EnvironmentConfig], VectorSource],
        *,
        progress: Progress | None = None,
    ) -> None:
        """Make the first groups.

        Args:
            config: the environments to begin with.
            group_envs: environments in a group; it divides their number.
            make: makes the source of one group from its config.
            progress: called with (done, total) while they start, here and in `reset`.

        Raises:
            ConfigError: the group does not divide the number of environments, or what `make` raises.
        """
        if group_envs < 1 or config.num_envs % group_envs:
            raise ConfigError(f"groups of {group_envs} do not make {config.num_envs} environments: give a multiple")
        self.group_envs = group_envs
        self._group_config = dataclasses.replace(config, num_envs=group_envs)
        self._make, self._progress = make, progress
        self._members: list[VectorSource] = []
        self._observations: list[np.ndarray] = []
        groups = config.num_envs // group_envs
        for number in range(groups):
            self._tell(number, 2 * groups)
            self._members.append(make(self._group_config))
        self.num_actions = self._members[0].num_actions
        self.observation_shape = self._members[0].observation_shape
        self._action_space = self._members[0].action_space

    @property
    def action_space(self) -> Space[Any]:
        """That of every member."""
        return self._action_space

    @property
    def num_envs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many there are now."""
        return sum(member.num_envs for member in self._members)

    def reset(self, seed: int) -> np.ndarray:
        """Start every environment anew: see `VectorSource.reset`."""
        groups = len(self._members)
        self._observations = []
        for number, (member, own) in enumerate(zip(self._members, _seeds(seed, groups), strict=True)):
            self._tell(groups + number, 2 * groups)
            self._observations.append(member.reset(own))
        self._tell(2 * groups, 2 * groups)
        return np.concatenate(self._observations)

    def resize(self, num_envs: int, seed: int) -> np.ndarray:
        """Add new groups or retire the newest, between two steps.

        Args:
            num_envs: environments from now on: a multiple of `group_envs`, one group or more.
            seed: of the new groups, 0 or more.

        Returns:
            (num_envs, *observation_shape) the observations to act on next; those of environments that stay are the
            ones that the last step gave.

        Raises:
            ConfigError: a number of environments that groups do not make.
            RuntimeError: not reset yet, or closed.
        """
        if num_envs < 1 or num_envs % self.group_envs:
            raise ConfigError(f"groups of {self.group_envs} do not make {num_envs} environments: give a multiple")
        self._require_started()
        groups = num_envs // self.group_envs
        for member in self._members[groups:]:
            member.close()
        del self._members[groups:], self._observations[groups:]
        for own in _seeds(seed, groups - len(self._members)):
            member = self._make(self._group_config)
            self._observations.append(member.reset(own))
            self._members.append(member)
        return np.concatenate(self._observations)

    def step(self, actions: np.ndarray) -> Transition:
        """Take one step in every environment, all emulators at once: see `VectorSource.step`."""
        self._require_started()
        check_actions(actions, self.num_envs, self._action_space)
        edges = [0, *accumulate(member.num_envs for member in self._members)]
        parts = [actions[a:b] for a, b in pairwise(edges)]
        for member, part in zip(self._members, parts, strict=True):
            _send(member, part)
        steps = [_recv(member, part) for member, part in zip(self._members, parts, strict=True)]
        self._observations = [step.observations for step in steps]
        return join_transitions(steps)

    def close(self) -> None:
        """Free all groups; closing twice is harmless."""
        for member in self._members:
            member.close()
        self._observations = []

    def _require_started(self) -> None:
        if not self._observations:
            raise RuntimeError("the environments have not started or are closed: call reset(seed) first")

    def _tell(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)


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
        """Give one half's environments their actions, (n/2, ...) as `step` takes them, and return at once.

        Raises:
            ValueError: actions of another shape or type, or out of range.
            RuntimeError: not reset yet, sent already, or closed.
        """
        if not self._observations or self._sent[half] is not None:
            raise RuntimeError(f"half {half} has not started, is closed or was sent its actions already")
        member = self._members[half]
        check_actions(actions, member.num_envs, self._action_space)
        _send(member, actions)
        self._sent[half] = actions

    def recv(self, half: int) -> Transition:
        """Wait for the step that `send` began; `finished` counts within the half.

        Raises:
            RuntimeError: nothing was sent, or closed.
        """
        actions = self._sent[half]
        if actions is None:
            raise RuntimeError(f"nothing was sent to half {half}: call send(half, actions) before recv(half)")
        transition = _recv(self._members[half], actions)
        self._sent[half] = None
        self._observations[half] = transition.observations
        return transition

    def close(self) -> None:
        """Free both halves; closing twice is harmless."""
        super().close()
        self._sent = [None, None]


def _send(member: VectorSource, actions: np.ndarray) -> None:
    """Start a step where emulators run by themselves."""
    if isinstance(member, AtariVector):
        member.send(actions)


def _recv(member: VectorSource, actions: np.ndarray) -> Transition:
    return member.recv() if isinstance(member, AtariVector) else member.step(actions)


def join_transitions(steps: Sequence[Transition]) -> Transition:
    """What one step of several sources gives, as if they were one, in their order."""
    joined = {
        field.name: np.concatenate([getattr(step, field.name) for step in steps])
        for field in dataclasses.fields(Transition)
    }
    first = accumulate((len(step.valid) for step in steps), initial=0)
    finished = [step.finished + begin for step, begin in zip(steps, first, strict=False)]
    return Transition(**joined | {"finished": np.concatenate(finished)})


def _seeds(seed: int, count: int) -> list[int]:
    """Seeds of groups, none of which two calls with different seeds share but by chance."""
    if seed < 0:
        raise ConfigError(f"seed is {seed}: give 0 or more")
    return (np.random.SeedSequence(seed).generate_state(max(count, 0), np.uint64) >> 2).astype(np.int64).tolist()
