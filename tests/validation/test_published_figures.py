"""Figures of Zhang et al. 2019 show what they should. `tests/cli/test_nqm.py` makes all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rl_scaling.validation.gallery import Exhibit
from rl_scaling.validation.published_figures import figure_1, figure_2, figure_11


@pytest.mark.parametrize("figure", [figure_1, figure_2, figure_11])
def test_single_directions_show_what_they_should(figure: Callable[[], Exhibit]) -> None:
    shown = figure()
    assert shown.checks
    for check in shown.checks:
        assert check.holds, check
    assert shown.figure.name == f"nqm-{shown.heading.lower().replace(' ', '-')}"
