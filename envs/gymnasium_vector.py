"""Gymnasium's vector environments behind the interface of `VectorSource`."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from rl_scaling.config import ConfigError
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.envs.vector import EpisodeTally, Transition, VectorSource, check_actions


class GymnasiumVector(VectorSource):
    """Any Gymnasium vector environment with array observations, discrete actions and next-step reset.

    uint8 observations stay as they are, all others become float32. Rewards are not clipped and the score is their sum.
    """

    def __init__(self, environment: GymnasiumConfig | VectorEnv) -> None:
        """Make the environments a config describes, or take over a user's own vector environment.

        Raises:
            ConfigError: an environment that does not exist, or one of another kind than the above.
        """
        self._env = _make(environment) if isinstance(environment, GymnasiumConfig) else environment
        _require_next_step(self._env)
        observations, actions = self._env.single_observation_space, self._env.single_action_space
        if not isinstance(observations, gymnasium.spaces.Box):
            raise ConfigError(f"observations are {observations}: only arrays of numbers (Box) can be learned from")
        if not isinstance(actions, gymnasium.spaces.Discrete):
            raise ConfigError(f"actions are {actions}: only a choice among numbered actions (Discrete) can be learned")
        self.num_envs = self._env.num_envs
        self.num_actions, self._first_action = int(actions.n), int(actions.start)
        self.observation_shape = observations.shape
        self._dtype = np.uint8 if observations.dtype == np.uint8 else np.float32
        self._tally = EpisodeTally(self.num_envs)
        self._resetting: np.ndarray | None = None
        self._closed = False

    def reset(self, seed: int) -> np.ndarray:
        """Start every environment anew: see `VectorSource.reset`."""
        if seed < 0:
            raise ConfigError(f"seed is {seed}: give 0 or more")
        if self._closed:
            raise RuntimeError("the environments are closed: make a new GymnasiumVector")
        # Gymnasium gives environment i the seed first + i: runs with neighbouring seeds must not share any of them.
        observations, _ = self._env.reset(seed=int(np.random.default_rng(seed).integers(2**30)))
        self._tally.restart(np.ones(self.num_envs, bool))
        self._resetting = np.zeros(self.num_envs, bool)
        return np.array(observations, self._dtype)

    def step(self, actions: np.ndarray) -> Transition:
        """Take one step in every environment: see `VectorSource.step`."""
        if self._closed or self._resetting is None:
            raise RuntimeError(
                "the environments are closed: make a new GymnasiumVector"
                if self._closed
                else "the environments have not started: call reset(seed) first"
            )
        check_actions(actions, self.num_envs, self.num_actions)
        observations, rewards, terminated, truncated, _ = self._env.step(actions + self._first_action)
        valid = ~self._resetting
        self._tally.add(rewards, valid)
        self._resetting = ended = (terminated | truncated) & valid
        return Transition(
            np.array(observations, self._dtype),
            rewards.astype(np.float32) * valid,
            terminated & valid,
            truncated & ~terminated & valid,
            valid,
            *self._tally.finish(ended),
        )

    def close(self) -> None:
        """Free the environments; closing twice is harmless."""
        if not self._closed:
            self._env.close()
        self._closed = True


def _make(config: GymnasiumConfig) -> VectorEnv:
    try:
        spec = gymnasium.spec(config.env_id)
        mode = "sync" if spec.entry_point is not None else "vector_entry_point"
        return gymnasium.make_vec(config.env_id, num_envs=config.num_envs, vectorization_mode=mode)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise ConfigError(f"no environment {config.env_id!r}: {' '.join(str(error).split())}") from error


def _require_next_step(env: VectorEnv) -> None:
    # The attribute first: metadata is one dictionary shared by all environments of a class, and the last one made wins.
    mode = getattr(env.unwrapped, "autoreset_mode", None) or env.metadata.get("autoreset_mode")
    if mode is None or AutoresetMode(mode) is not AutoresetMode.NEXT_STEP:
        said = "says nothing of how it resets" if mode is None else f"resets in the mode {AutoresetMode(mode).name}"
        raise ConfigError(f"the vector environment {said}: make it with autoreset_mode=AutoresetMode.NEXT_STEP")
