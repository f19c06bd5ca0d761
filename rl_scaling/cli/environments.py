"""From the options that name an environment to its config."""

from __future__ import annotations

import dataclasses

from rl_scaling.config import ConfigError
from rl_scaling.envs.config import AtariConfig, AtariSettings, EnvironmentConfig, GymnasiumConfig


def environment_config(game: str | None, env_id: str | None, num_envs: int, played: AtariSettings) -> EnvironmentConfig:
    """The environment that --game or --env-id names.

    Raises:
        ConfigError: neither or both are given, there is no such game, or options of a game for what is none.
    """
    if (game is None) == (env_id is None):
        raise ConfigError("name one environment: --game Breakout, or --env-id CartPole-v1")
    options = dataclasses.asdict(played)
    if env_id is not None:
        for name, value in options.items():
            if value != getattr(AtariSettings, name):
                raise ConfigError(f"--{name.replace('_', '-')} is for Atari: leave it out for {env_id}")
        return GymnasiumConfig(env_id=env_id, num_envs=num_envs)
    from rl_scaling.envs import find_game

    return AtariConfig(game=find_game(game or "").name, num_envs=num_envs, **options)
