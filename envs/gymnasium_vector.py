"""Gymnasium's vector environments behind the interface of `VectorSource`."""

from __future__ import annotations

import functools
import importlib
import warnings
from contextlib import nullcontext
from importlib.metadata import entry_points
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import namespace
from gymnasium.spaces import Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv

from rl_scaling.config import ConfigError
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.envs.spaces import Actions, Observations
from rl_scaling.envs.vector import EpisodeTally, Transition, VectorSource, check_actions


class GymnasiumVector(VectorSource):
    """Any Gymnasium vector environment with next-step reset whose observations are numbers, and whose actions are.

    `Observations` says what is made of observations, `Actions` what becomes of actions. Rewards are not clipped and the
    score is their sum.
    """

    def __init__(self, environment: GymnasiumConfig | VectorEnv) -> None:
        """Make the environments a config describes, or take over a user's own vector environment.

        Raises:
            ConfigError: an environment that does not exist, or one of another kind than the above.
        """
        self._env = _make(environment) if isinstance(environment, GymnasiumConfig) else environment
        _require_next_step(self._env)
        self._observations = Observations(self._env.single_observation_space, self._env.observation_space)
        self._actions = Actions(self._env.single_action_space)
        space = self._actions.space
        self.num_envs = self._env.num_envs
        self.num_actions = int(space.n) if isinstance(space, Discrete) else 0
        self.observation_shape = self._observations.shape
        self._tally = EpisodeTally(self.num_envs)
        self._resetting: np.ndarray | None = None
        self._closed = False

    @property
    def action_space(self) -> Space[Any]:
        """See `VectorSource.action_space`."""
        return self._actions.space

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
        return self._observations(observations)

    def step(self, actions: np.ndarray) -> Transition:
        """Take one step in every environment: see `VectorSource.step`."""
        if self._closed or self._resetting is None:
            raise RuntimeError(
                "the environments are closed: make a new GymnasiumVector"
                if self._closed
                else "the environments have not started: call reset(seed) first"
            )
        check_actions(actions, self.num_envs, self._actions.space)
        observations, rewards, terminated, truncated, _ = self._env.step(self._actions(actions))
        valid = ~self._resetting
        self._tally.add(rewards, valid)
        self._resetting = ended = (terminated | truncated) & valid
        return Transition(
            self._observations(observations),
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
    module, colon, name = config.env_id.rpartition(":")
    try:
        if colon:
            _import_environments(module, name)
        elif name not in gymnasium.registry:
            _load_plug_ins()
        spec = gymnasium.spec(name)
        mode = "sync" if spec.entry_point is not None else "vector_entry_point"
        return gymnasium.make_vec(name, num_envs=config.num_envs, vectorization_mode=mode)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"no environment {config.env_id!r}: {' '.join(str(error).split())}") from error


def _import_environments(module: str, name: str) -> None:
    """Import what registers an environment, and call its `register_envs()` where importing is not enough (MinAtar)."""
    try:
        imported = importlib.import_module(module)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        missing = getattr(error, "name", None) or module
        raise ConfigError(
            f"no environment '{module}:{name}': there is no module {missing!r}; install it, or name its folder in"
            " PYTHONPATH"
        ) from error
    hook = getattr(imported, "register_envs", None)
    if name not in gymnasium.registry and callable(hook) and hook is not gymnasium.register_envs:
        hook()


@functools.cache
def _load_plug_ins() -> None:
    """Call what installed distributions give as entry points, as Gymnasium did before version 1."""
    for plug_in in entry_points(group="gymnasium.envs"):
        problem = None
        with nullcontext() if plug_in.name == "__root__" else namespace(plug_in.name), warnings.catch_warnings():
            # Of what its module's own hook has registered before.
            warnings.filterwarnings("ignore", ".*Overriding environment .* already in registry")
            try:  # inside: an error would leave Gymnasium in the namespace
                plug_in.load()()
            except Exception as error:  # of somebody else's package, and perhaps not of the one that is wanted
                problem = error
        if problem is not None:
            gymnasium.logger.warn(f"{plug_in.value} did not register its environments: {problem}")


def _require_next_step(env: VectorEnv) -> None:
    # The attribute first: metadata is one dictionary shared by all environments of a class, and the last one made wins.
    mode = getattr(env.unwrapped, "autoreset_mode", None) or env.metadata.get("autoreset_mode")
    if mode is None or AutoresetMode(mode) is not AutoresetMode.NEXT_STEP:
        said = "says nothing of how it resets" if mode is None else f"resets in the mode {AutoresetMode(mode).name}"
        raise ConfigError(f"the vector environment {said}: make it with autoreset_mode=AutoresetMode.NEXT_STEP")
