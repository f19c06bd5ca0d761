"""Which models train together with others as each trains alone."""

from __future__ import annotations

from typing import Any

import pytest

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.batched import (
    require_stackable,
)
from rl_scaling.domains.supervised.models import make_model


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("wide-resnet", {"depth": 10, "width": 1}, "BatchNorm2d are trained one at a time"),
        ("resnet32", {}, "GhostBatchNorm2d are trained one at a time"),
        ("cnn", {"dropout": 0.4}, "dropout are trained one at a time"),
    ],
)
def test_models_that_cannot_train_together_say_why(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        require_stackable(make_model(name, (1, 8, 8), 10, seed=0, **options))
