"""Options that are the fields of configs, counts, and the one way to print."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import tyro

from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.cli.options import as_json, at_least, changed, given, options_of, parse_count, print_json
from rl_scaling.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Soup:
    """A config.

    Attributes:
        carrots: carrots in the pot.
        salted: with salt.
        spices: what else goes in.
    """

    kind = "soup"

    carrots: int = 3
    salted: bool = True
    spices: tuple[str, ...] = ()


SoupOptions = options_of(Soup, leave_out=["spices"], only="Cooking", roots="carrots")


def test_what_is_not_given_is_left_to_the_config() -> None:
    assert given(SoupOptions()) == {}
    assert given(tyro.cli(options_of(Soup), args=[])) == {}


def test_options_are_read_by_name_and_switches_have_a_no() -> None:
    assert given(tyro.cli(SoupOptions, args=["--roots", "5", "--no-salted"])) == {"carrots": 5, "salted": False}
    assert given(tyro.cli(options_of(Soup), args=["--spices", "thyme", "bay"])) == {"spices": ("thyme", "bay")}


def test_help_is_the_docstring_with_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(SoupOptions, args=["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--roots INT Cooking: carrots in the pot. (default 3)" in said
    assert "--salted, --no-salted Cooking: with salt. (default: True)" in said
    assert "spices" not in said


def test_a_field_of_several_configs_is_one_option_that_says_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    both = options_of(A2CConfig, PPOConfig)
    with pytest.raises(SystemExit):
        tyro.cli(both, args=["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert said.count("--rollout-steps ") == 1
    assert "(default 5); PPO: steps of every environment per rollout. (default 128)" in said
    assert "PPO: how often every frame is used. (default 4)" in said
    assert given(both(epochs=2, rollout_steps=7)) == {"epochs": 2, "rollout_steps": 7}


def test_an_option_of_another_config_is_refused() -> None:
    assert changed(A2CConfig(), {"rollout_steps": 7}, "").rollout_steps == 7
    with pytest.raises(ConfigError, match="--gae-lambda is not for a2c"):
        changed(A2CConfig(), {"gae_lambda": 0.9}, "{option} is not for a2c")


@pytest.mark.parametrize(("text", "count"), [("2000000", 2_000_000), ("2_000", 2_000), ("2e6", 2_000_000), ("-1", -1)])
def test_counts_are_written_as_people_write_them(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["1.5", "many", "nan", "inf", ""])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a whole number: write for instance 2000000 or 2e6"):
        parse_count(text)


def test_too_small_and_nan_are_refused() -> None:
    at_least(0, workers=0)
    for value in (-1, math.nan):
        with pytest.raises(ConfigError, match=r"--num-envs is .*: give 0 or more"):
            at_least(0, num_envs=value)


def test_json_has_null_where_a_number_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(as_json({"low": 1.0, "high": math.inf, "value": math.nan, "status": "ok"}))
    assert capsys.readouterr().out.split() == [
        *("{", '"low":', "1.0,", '"high":', "null,", '"value":', "null,", '"status":', '"ok"', "}")
    ]
    with pytest.raises(ValueError, match="JSON"):
        print_json({"value": math.nan})
