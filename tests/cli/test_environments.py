"""Options that name an environment."""

from __future__ import annotations

from dataclasses import fields

import pytest

from rl_scaling.agents.config import A2CConfig
from rl_scaling.cli.environments import GameOptions, environment_config, played, suited_agent
from rl_scaling.config import ConfigError
from rl_scaling.envs.config import AtariConfig, GymnasiumConfig, MinAtarConfig


def test_a_game_or_an_id_is_named_and_not_both() -> None:
    assert environment_config("Q*bert", None, 4, {}) == AtariConfig(game="Qbert", num_envs=4)
    assert environment_config("minatar/breakout", None, 4, {}) == MinAtarConfig(game="breakout", num_envs=4)
    assert environment_config(None, "CartPole-v1", 4, {}) == GymnasiumConfig(env_id="CartPole-v1", num_envs=4)
    for game, env_id in ((None, None), ("Pong", "CartPole-v1")):
        with pytest.raises(ConfigError, match="name one environment: --game"):
            environment_config(game, env_id, 4, {})


def test_options_are_the_fields_of_the_games_and_go_to_those_that_have_them() -> None:
    assert {field.name for field in fields(GameOptions)} >= {"frame_skip", "difficulty_ramping"}
    steady = played(MinAtarConfig(game="asterix"), {"difficulty_ramping": False})
    assert steady == MinAtarConfig(game="asterix", difficulty_ramping=False)
    with pytest.raises(ConfigError, match="--difficulty-ramping is for MinAtar: leave it out for Pong"):
        played(AtariConfig(game="Pong"), {"difficulty_ramping": False})
    with pytest.raises(ConfigError, match="--sticky-action-probability is for Atari and MinAtar"):
        played(GymnasiumConfig(env_id="CartPole-v1"), {"sticky_action_probability": 0.25})


def test_of_gymnasium_a_network_that_fits_is_taken_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert suited_agent(A2CConfig(), GymnasiumConfig(env_id="CartPole-v1")).network == "mlp"
    assert "shape (4,): the network is mlp" in capsys.readouterr().err
    assert suited_agent(A2CConfig(), AtariConfig(game="Pong")) == A2CConfig()
    assert capsys.readouterr().err == ""
