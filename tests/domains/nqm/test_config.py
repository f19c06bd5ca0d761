"""A run's identity: equal questions have one run id, and stored ones keep theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rl_scaling.config import ConfigError
from rl_scaling.domains.nqm.config import NQMConfig

RESULTS = Path(__file__).parents[3] / "results" / "nqm"
PLAIN: dict[str, Any] = {"optimizer": "ema", "coefficient": 0.5, "batch_size": 64, "learning_rate": 1.0, "updates": 100}


@pytest.mark.parametrize(
    "same", [{"batch_size": 64.0}, {"learning_rate": 1}, {"updates": 1e2}, {"power": 0}, {"dimension": 1e4}]
)
def test_equal_numbers_of_another_type_are_one_question(same: dict[str, Any]) -> None:
    config = NQMConfig(**{**PLAIN, **same})
    assert config == NQMConfig(**PLAIN)
    assert config.run_id == NQMConfig(**PLAIN).run_id
    assert type(config.batch_size) is type(config.updates) is int


def test_stored_runs_keep_their_ids() -> None:
    stored = sorted(RESULTS.glob("*/config.json"))
    assert len(stored) > 100
    for path in stored:
        plain = json.loads(path.read_text())["config"]
        assert plain.pop("kind") == "nqm"
        assert NQMConfig(**plain).run_id == path.parent.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adam"}, "no optimizer 'adam': sgd, momentum"),
        ({"batch_size": 0}, "batch_size is 0: give a positive number"),
        ({"batch_size": 1.5}, "batch_size is 1.5: give a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: give a positive number"),
        ({"power": 2}, "power is 2.0: give a number from 0 to 1"),
        ({"coefficient": 1}, "coefficient is 1.0: give a number from 0 to below 1"),
        ({"averaging": 0.5}, "ema takes no averaging: choose momentum-ema or nesterov-ema"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NQMConfig(**{**PLAIN, **change})
    assert str(caught.value).startswith(message)
