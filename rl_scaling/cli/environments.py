"""Options that name an environment and say how it is played, and what they come to."""

from __future__ import annotations

import dataclasses
from typing import Any

from rl_scaling.cli.options import changed, options_of, say
from rl_scaling.config import ConfigError
from rl_scaling.envs.config import AtariConfig, EnvironmentConfig, GymnasiumConfig, MinAtarConfig

_GAMES = (AtariConfig, MinAtarConfig)
GameOptions = options_of(*_GAMES, leave_out=["game", "num_envs"])


def environment_config(
    game: str | None, env_id: str | None, num_envs: int, options: dict[str, Any]
) -> EnvironmentConfig:
    """The environment that --game or --env-id names.

    Raises:
        ConfigError: neither or both are given, there is no such game, or options of a game for what is none.
    """
    if (game is None) == (env_id is None):
        raise ConfigError("name one environment: --game Breakout, or --env-id CartPole-v1")
    if env_id is not None:
        return played(GymnasiumConfig(env_id=env_id, num_envs=num_envs), options)
    from rl_scaling.envs import find_game

    return played(find_game(game or "").environment(num_envs=num_envs), options)


def played(environment: EnvironmentConfig, options: dict[str, Any]) -> EnvironmentConfig:
    """An environment with the given `GameOptions`.

    Raises:
        ConfigError: it has no such option, or refuses its value.
    """
    for option, value in options.items():
        owners = " and ".join(game.family for game in _GAMES if hasattr(game, option))
        refusal = f"{{option}} is for {owners}: leave it out for {environment.name}"
        environment = changed(environment, {option: value}, refusal)
    return environment


def suited_agent(agent: Any, environment: EnvironmentConfig) -> Any:
    """The agent, with a network that takes the observations of a Gymnasium environment; what is changed is said.

    Raises:
        ConfigError: there is no such environment, or it cannot be learned from.
    """
    if not isinstance(environment, GymnasiumConfig):
        return agent
    from rl_scaling.agents.networks import suited_network
    from rl_scaling.envs import example_observation

    shape = example_observation(environment).shape
    network = suited_network(agent.network, shape)
    if network != agent.network:
        say(f"observations of {environment.name} have the shape {shape}: the network is {network}")
    return dataclasses.replace(agent, network=network)
