from __future__ import annotations

import dataclasses
import json
import math
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.agents.config import A2CConfig
from rl_scaling.config import Config, ConfigError, parse, to_dict
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs.config import AtariConfig

RUN = RunConfig(environment=AtariConfig(game="Pong"), agent=A2CConfig())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Config):
    kind: ClassVar[str] = "part"
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Config):
    name: str
    count: int
    flag: bool = False
    parts: tuple[Part, ...] = ()
    part: Part | None = None


WHOLE = {"name": "a", "count": 2}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"name": "a"}, "not a thing: no field 'count'"),
        ({**WHOLE, "colour": 1}, "not a thing: unknown field 'colour'"),
        ({**WHOLE, "count": "2"}, "not a thing: count: '2' is not a whole number"),
        ({**WHOLE, "count": 2.5}, "not a thing: count: 2.5 is not a whole number"),
        ({**WHOLE, "count": True}, "not a thing: count: True is not a whole number"),
        ({**WHOLE, "count": math.inf}, "not a thing: count: inf is not a whole number"),
        ({**WHOLE, "count": None}, "not a thing: count: None is not a whole number"),
        ({**WHOLE, "flag": 1}, "not a thing: flag: 1 is not true or false"),
        ({**WHOLE, "name": 3}, "not a thing: name: 3 is not text"),
        ({**WHOLE, "parts": [{"weight": "x"}]}, "not a thing: parts.weight: 'x' is not a number"),
        ({**WHOLE, "parts": [{"weight": False}]}, "not a thing: parts.weight: False is not a number"),
        ({**WHOLE, "parts": [{"kind": "other"}]}, "not a thing: parts: unknown field 'kind'"),
        ({**WHOLE, "parts": 3}, "not a thing: parts: "),
        ({**WHOLE, "part": 3}, "not a thing: part: "),
        ([], "not a thing: "),
        ("text", "not a thing: "),
        (None, "not a thing: "),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(plain: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Whole, plain, "thing")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_numbers_are_read_as_declared_and_a_kind_is_said_or_not() -> None:
    whole = Whole(name="a", count=2, parts=(Part(weight=2.0),), part=Part())
    assert parse(Whole, json.loads(json.dumps(to_dict(whole))), "thing") == whole
    assert parse(Whole, {**WHOLE, "count": 2.0, "parts": [{"weight": 2}], "part": {}}, "thing") == whole
    assert to_dict(whole)["part"] == {"kind": "part", "weight": 1.0}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "count", "kind"]), inner),
    max_leaves=6,
)


@given(plain=JSON, field=st.sampled_from([*to_dict(RUN), "kind"]))
def test_whatever_is_read_is_a_config_or_one_line(plain: object, field: str) -> None:
    for found in (plain, {**to_dict(RUN), field: plain}):
        try:
            parse(RunConfig, found, "run's config")
        except ConfigError as error:
            assert "\n" not in str(error)  # noqa: PT017
