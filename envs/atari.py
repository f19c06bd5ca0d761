"""Many copies of one Atari game on ale-py's C++ thread pool, without its traps.

What is done here that the emulator's own vector environment does not do:

- Lost lives end the return but not the game; the score is the raw score of the whole game.
- The time limit is counted here. At its own limit the emulator returns a newest frame that never was (the pixelwise
  maximum of the step before and of this step's third frame), hides the limit when a life is lost on the same step, and
  then resets unasked.
- An action out of range, two sends in a row or a receive without a send would hang it or return garbage: errors here.
- Each environment starts after its own random number of random steps, so that they do not all see the same moment.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from ale_py.vector_env import AtariVectorEnv

from rl_scaling.config import ConfigError
from rl_scaling.envs.config import AtariConfig
from rl_scaling.envs.games import find_game
from rl_scaling.envs.make import ATARI_OBSERVATION, available_cpus
from rl_scaling.envs.vector import EpisodeTally, Progress, Transition, VectorSource, check_actions

# Half an hour of play at 60 frames per second, as everywhere in the literature.
EPISODE_EMULATOR_FRAMES = 108_000
# Creating an emulator takes about 0.15 s with Python's lock held: between pools of this size progress can be shown.
ENVS_PER_POOL = 64
_NEVER = 2**30


class AtariVector(VectorSource):
    """num_envs copies of one game: (n, 4, 84, 84) uint8 grey frames, maximum of the last two of every `frame_skip`.

    A game begins with 0 to 29 no-ops, FIRE taking the place of the first where the game has that button. After a lost
    life nobody presses FIRE: in Breakout the player must serve. `step` is `send` then `recv`; between the two the
    emulators run on their own threads while Python does something else.

    Scores: a game is reported when it really ends, by its last life or the time limit, if the learner played all of
    it. The games that were under way after the random start are therefore left out: part of their score is luck.
    """

    observation_shape = ATARI_OBSERVATION

    def __init__(
        self,
        config: AtariConfig,
        *,
        num_threads: int | None = None,
        progress: Progress | None = None,
        episode_emulator_frames: int = EPISODE_EMULATOR_FRAMES,
    ) -> None:
        """Create the emulators: about 0.15 seconds each, one after the other.

        Args:
            config: the game, how many of it, and how it is played.
            num_threads: emulator threads; by default one per CPU that this process may use, and never more than
                environments. Beyond 64 environments every 64 have a thread of their own at least.
            progress: called with (done, total) now and then while environments start; total is twice num_envs, the
                constructor does one half of it and `reset` the other.
            episode_emulator_frames: time limit of a game in emulator frames (frame_skip per agent step).

        Raises:
            ConfigError: no such game, or a number of threads or a time limit below 1.
        """
        for name, value in (("num_threads", num_threads), ("episode_emulator_frames", episode_emulator_frames)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: give 1 or more")
        self.config = config
        self.num_envs = config.num_envs
        self.num_threads = min(num_threads or available_cpus(), self.num_envs)
        self._progress, self._progress_shown = progress, -1
        self._step_limit = -(-episode_emulator_frames // config.frame_skip)
        self._slices = _split(self.num_envs, ENVS_PER_POOL)
        self._pools = self._create_pools()
        self.num_actions = len(self._pools[0].ale.get_action_set())
        self._tally = EpisodeTally(self.num_envs)
        self._state: Literal["new", "ready", "sent", "broken", "closed"] = "new"

    def _create_pools(self) -> list[AtariVectorEnv]:
        game, pools = find_game(self.config.game), []
        self._tell(0)
        for part in self._slices:
            pools.append(self._create_pool(game.rom, part.stop - part.start))
            self._tell(part.stop)
        return pools

    def _tell(self, done: int) -> None:
        if self._progress is not None and done != self._progress_shown:
            self._progress(done, 2 * self.num_envs)
        self._progress_shown = done

    def _create_pool(self, rom: str, num_envs: int) -> AtariVectorEnv:
        with contextlib.redirect_stdout(sys.stderr):  # ale-py prints where it looks for ROMs
            return AtariVectorEnv(
                rom,
                num_envs,
                num_threads=-(-self.num_threads // len(self._slices)),
                max_num_frames_per_episode=_NEVER,
                repeat_action_probability=self.config.sticky_action_probability,
                frameskip=self.config.frame_skip,
                life_loss_info=True,
                reward_clipping=False,
            )

    def reset(self, seed: int) -> np.ndarray:
        """Start every game anew and take the random start.

        Each environment takes a random number of random steps, evenly from 0 to `max_start_steps` (McCandlish et al.
        2018, A.4.2). Emulators only step together, so all take the largest of these numbers and environment i is reset
        when just its own number is left. Raises and returns: see `VectorSource.reset`.
        """
        if seed < 0:
            raise ConfigError(f"seed is {seed}: give 0 or more")
        self._expect("new", "ready")
        random = np.random.default_rng(seed)
        with self._whole_or_broken():
            observations = self._seeded_reset(int(random.integers(2**30)))
        self._tally.restart(np.ones(self.num_envs, bool))
        self._at_limit = np.zeros(self.num_envs, bool)
        self._resetting = np.zeros(self.num_envs, bool)
        self._state = "ready"
        return self._random_start(observations, random)

    def _seeded_reset(self, first: int) -> np.ndarray:
        """Give environment i the emulator's seed first + i; about 0.1 seconds of CPU time each."""
        with ThreadPoolExecutor(len(self._pools)) as threads:
            seeds = [first + part.start for part in self._slices]
            starts = list(threads.map(lambda pool, seed: pool.reset(seed=seed), self._pools, seeds))
        self._lives = _join([info["lives"] for _, info in starts])
        return _join([observations for observations, _ in starts])

    def _random_start(self, observations: np.ndarray, random: np.random.Generator) -> np.ndarray:
        steps_left = random.integers(self.config.max_start_steps + 1, size=self.num_envs)
        longest = int(steps_left.max())
        for left in range(longest, 0, -1):
            observations = self.step(random.integers(self.num_actions, size=self.num_envs)).observations
            self._begin_games(steps_left == left - 1, observations)
            self._tell(self.num_envs + self.num_envs * (longest - left) // longest)
        self._tally.disown_games_under_way()
        self._tell(2 * self.num_envs)
        return observations

    def _begin_games(self, mask: np.ndarray, observations: np.ndarray) -> None:
        """Begin new games where `mask` is set, and put their first observations into `observations`."""
        for pool, part in zip(self._pools, self._slices, strict=True):
            if mask[part].any():
                with self._whole_or_broken():
                    observations[part], info = pool.reset(options={"reset_mask": mask[part]})
                self._lives[part] = info["lives"]
        self._tally.restart(mask)
        self._at_limit = self._at_limit & ~mask
        self._resetting = self._resetting & ~mask

    def step(self, actions: np.ndarray) -> Transition:
        """Take one step in every environment: see `VectorSource.step`."""
        self.send(actions)
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        """Give the emulators their actions, (n,) integers, and return at once; `recv` collects the results.

        Raises:
            ValueError: actions of another shape or type, or out of range.
            RuntimeError: not reset yet, sent already, or closed.
        """
        self._expect("ready")
        check_actions(actions, self.num_envs, self.num_actions)
        actions = np.ascontiguousarray(actions, np.int64)
        with self._whole_or_broken():
            for pool, part in zip(self._pools, self._slices, strict=True):
                pool.send(actions[part])
        self._state = "sent"

    def recv(self) -> Transition:
        """Wait for the step that `send` began.

        Raises:
            RuntimeError: nothing was sent, or closed.
        """
        self._expect("sent")
        with self._whole_or_broken():
            observations, raw_rewards, ends, lives = self._receive()
        self._state = "ready"
        # Some games end with lives left (Adventure), so "no lives" is not the sign of the end.
        game_over = ends & ~((lives > 0) & (lives < self._lives))
        self._lives = lives
        valid = ~self._resetting
        if self._at_limit.any():  # these were stepped like all others: only now are they reset
            self._begin_games(self._at_limit, observations)
        self._tally.add(raw_rewards, valid)
        terminated = ends & valid if self.config.life_loss_terminates else game_over & valid
        limit = self._tally.frames >= self._step_limit
        self._at_limit = limit & ~game_over
        self._resetting = ended = limit | (game_over & valid)
        rewards = np.sign(raw_rewards).astype(np.float32) * valid
        return Transition(observations, rewards, terminated, limit & ~terminated, valid, *self._tally.finish(ended))

    def _receive(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(n, ...) observations, (n,) raw rewards, (n,) games or lives that ended, (n,) lives left."""
        observations, rewards, ends, _, infos = zip(*(pool.recv() for pool in self._pools), strict=True)
        return _join(observations), _join(rewards), _join(ends), _join([info["lives"] for info in infos])

    def close(self) -> None:
        """Free the emulators; closing twice is harmless."""
        self._pools = []
        self._state = "closed"

    def _expect(self, *states: str) -> None:
        if self._state not in states:
            raise RuntimeError(_COMPLAINTS[self._state])

    @contextlib.contextmanager
    def _whole_or_broken(self) -> Generator[None]:
        """Some pools may have moved on when Ctrl-C comes between them: never continue from there."""
        before, self._state = self._state, "broken"
        yield
        self._state = before


_COMPLAINTS = {
    "new": "the environments have not started: call reset(seed) first",
    "ready": "nothing was sent: call send(actions) before recv()",
    "sent": "actions were sent already: call recv() first",
    "broken": "a step was interrupted half-way: make a new AtariVector",
    "closed": "the environments are closed: make a new AtariVector",
}


def _split(count: int, most: int) -> list[slice]:
    """Cut range(count) into the fewest slices of at most `most`, of nearly equal size."""
    parts = -(-count // most)
    edges = [count * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
