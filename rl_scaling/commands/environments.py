"""From the options that name an environment to its config."""

from __future__ import annotations

from rl_scaling.config import AtariConfig, ConfigError, EnvironmentConfig, GymnasiumConfig


def environment_config(
    game: str | None, env_id: str | None, num_envs: int, *, frame_skip: int, sticky_action_probability: float
) -> EnvironmentConfig:
    """The environment that --game or --env-id names.

    Raises:
        ConfigError: neither or both are given, or there is no such game.
    """
    if (game is None) == (env_id is None):
        raise ConfigError("name one environment: --game Breakout, or --env-id CartPole-v1")
    if env_id is not None:
        return GymnasiumConfig(env_id=env_id, num_envs=num_envs)
    from rl_scaling.envs import find_game

    return AtariConfig(
        game=find_game(game or "").name,
        num_envs=num_envs,
        frame_skip=frame_skip,
        sticky_action_probability=sticky_action_probability,
    )
