"""Many copies of one MinAtar game (Young & Tian 2019), behind the interface of `VectorSource`.

The games are those of the package `minatar` as it is, sticky actions included: its `Environment` is stepped directly,
which takes half the time of its Gymnasium wrapper and needs no registration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from minatar import Environment

from rl_scaling.config import ConfigError
from rl_scaling.envs.vector import EpisodeTally, Transition, VectorSource, check_actions

if TYPE_CHECKING:
    from rl_scaling.envs.config import MinAtarConfig


class MinAtarVector(VectorSource):
    """num_envs copies of one game: (n, channels, 10, 10) float32, 1 where an object of the channel's kind is, else 0.

    They are stepped one after the other by this thread, in one to six microseconds each (Space Invaders 17). Rewards
    are the game's own, unclipped: 1 for most things, up to 10 for surfacing in Seaquest. A game that the package ends
    is `terminated`, Freeway after its 2501 steps too; one that `max_episode_steps` ends is `truncated`.

    As in the package, what a sticky action repeats may be the last action of the game before.

    Scores: a game is reported when it ends, by itself or at the limit, if the learner played all of it. Those that a
    random start left under way are not.
    """

    def __init__(self, config: MinAtarConfig) -> None:
        """Create the games."""
        self.config = config
        self.num_envs = config.num_envs
        self._games = [
            Environment(
                config.game,
                sticky_action_prob=config.sticky_action_probability,
                difficulty_ramping=config.difficulty_ramping,
            )
            for _ in range(self.num_envs)
        ]
        game = self._games[0]
        self._actions = np.array(game.minimal_action_set() if config.minimal_actions else range(game.num_actions()))
        self.num_actions = len(self._actions)
        self._rows, self._columns, self._channels = game.state_shape()
        self.observation_shape = (self._channels, self._rows, self._columns)
        self._step_limit = config.max_episode_steps or np.iinfo(np.int64).max
        self._tally = EpisodeTally(self.num_envs)
        self._resetting: np.ndarray | None = None  # None: not begun, or a step was interrupted half-way
        self._closed = False

    def reset(self, seed: int) -> np.ndarray:
        """Start every game anew, and take the random start if the config asks for one: see `VectorSource.reset`.

        Environment i gets the package's seed first + i, where `first` follows from the seed: runs with neighbouring
        seeds share no environment.
        """
        if seed < 0:
            raise ConfigError(f"seed is {seed}: give 0 or more")
        if self._closed:
            raise RuntimeError("the environments are closed: make a new MinAtarVector")
        self._resetting = None
        random = np.random.default_rng(seed)
        first = int(random.integers(2**30))
        for number, game in enumerate(self._games):
            game.seed(first + number)
            game.last_action = 0  # neither `seed` nor `reset` forgets it
            game.reset()
        self._tally.restart(np.ones(self.num_envs, bool))
        if self.config.max_start_steps:
            self._random_start(random)
        self._resetting = np.zeros(self.num_envs, bool)
        return self._observe()

    def _random_start(self, random: np.random.Generator) -> None:
        """Take a random number of random steps in each environment, evenly from 0 to `max_start_steps`."""
        steps = random.integers(self.config.max_start_steps + 1, size=self.num_envs)
        for number, game in enumerate(self._games):
            taken = 0  # in the game under way
            for action in random.choice(self._actions, size=steps[number]).tolist():
                _, over = game.act(action)
                taken += 1
                if over or taken >= self._step_limit:
                    game.reset()
                    taken = 0
            self._tally.frames[number] = taken
        self._tally.disown_games_under_way()

    def step(self, actions: np.ndarray) -> Transition:
        """Take one step in every environment: see `VectorSource.step`."""
        if self._closed or self._resetting is None:
            raise RuntimeError(
                "the environments are closed: make a new MinAtarVector"
                if self._closed
                else "the environments have not started: call reset(seed) first"
            )
        check_actions(actions, self.num_envs, self.num_actions)
        resetting, self._resetting = self._resetting, None
        outcomes = []
        for game, over, action in zip(self._games, resetting.tolist(), self._actions[actions].tolist(), strict=True):
            if over:
                game.reset()
                outcomes.append((0, False))
            else:
                outcomes.append(game.act(action))
        observations = self._observe()
        raw_rewards = np.array([reward for reward, _ in outcomes], np.float32)
        terminated = np.array([over for _, over in outcomes], bool)
        valid = ~resetting
        self._tally.add(raw_rewards, valid)
        truncated = (self._tally.frames >= self._step_limit) & ~terminated
        self._resetting = ended = terminated | truncated
        return Transition(observations, raw_rewards, terminated, truncated, valid, *self._tally.finish(ended))

    def _observe(self) -> np.ndarray:
        """(n, channels, rows, columns) what all games show, as float32: uint8 would be taken for pixels up to 255."""
        states = np.concatenate([game.env.state() for game in self._games])
        states = states.reshape(self.num_envs, self._rows, self._columns, self._channels)
        return np.ascontiguousarray(states.transpose(0, 3, 1, 2), np.float32)

    def close(self) -> None:
        """Free the games; closing twice is harmless."""
        self._games = []
        self._closed = True
