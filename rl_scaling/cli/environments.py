"""From the options that name an environment to its config."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rl_scaling.config import ConfigError
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, GymnasiumConfig


@dataclass(frozen=True)
class AtariOptions:
    """How a game is played; kept with the run."""

    sticky_action_probability: float = AtariConfig.sticky_action_probability
    """Atari: chance that the emulator repeats the previous action."""
    frame_skip: int = AtariConfig.frame_skip
    """Atari: emulator frames per agent step."""
    life_loss_terminates: bool = AtariConfig.life_loss_terminates
    """Atari: a lost life ends the return (the game goes on), or the end of the game alone does."""
    max_start_steps: int = AtariConfig.max_start_steps
    """Atari: each environment begins after a random number of random steps, at most this many."""


def environment_config(game: str | None, env_id: str | None, num_envs: int, played: AtariOptions) -> EnvironmentConfig:
    """The environment that --game or --env-id names.

    Raises:
        ConfigError: neither or both are given, there is no such game, or options of a game for what is none.
    """
    if (game is None) == (env_id is None):
        raise ConfigError("name one environment: --game Breakout, or --env-id CartPole-v1")
    options = dataclasses.asdict(played)
    if env_id is not None:
        for name, value in options.items():
            if value != getattr(AtariOptions, name):
                raise ConfigError(f"--{name.replace('_', '-')} is for Atari: leave it out for {env_id}")
        return GymnasiumConfig(env_id=env_id, num_envs=num_envs)
    from rl_scaling.envs import find_game

    return AtariConfig(game=find_game(game or "").name, num_envs=num_envs, **options)
