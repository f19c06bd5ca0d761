"""The runs below results/ give the fits that they gave when they were shipped.

shipped_fits/ holds what `rl-scaling fit STORE --json` printed then, to twelve digits; a store without goals of its own
has no file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rl_scaling.analysis import fits_to_json
from rl_scaling.cli.analyse import load_and_fit

SHIPPED = sorted((Path(__file__).parent / "shipped_fits").glob("*.json"))
RESULTS = Path(__file__).parents[2] / "results"


def rows_of(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


@pytest.mark.parametrize("golden", SHIPPED, ids=lambda path: path.stem)
def test_every_number_is_unchanged(golden: Path) -> None:
    _, fit = load_and_fit((RESULTS / golden.stem,))
    found = fits_to_json(fit.fits, fit.adaptive)
    expected = json.loads(golden.read_text())
    adaptive = [row for fitted in found for row in fitted.pop("adaptive")]
    for name, rows in (("fits", found), ("adaptive", adaptive)):
        wanted = rows_of(expected[name])
        assert len(rows) == len(wanted)
        for row, other in zip(rows, wanted, strict=True):
            assert row.keys() == other.keys()
            for column, value in row.items():
                like = pytest.approx(other[column], rel=1e-9, abs=0) if isinstance(value, float) else other[column]
                assert value == like, (row["task"], row["goal"], column)


def test_every_store_is_held() -> None:
    """A store that is new has its golden values too, unless it has no goals or nothing but weights that were kept."""
    without_goals = {"digits-budgets", "noise-frozen"}
    assert {path.stem for path in SHIPPED} | without_goals == {path.name for path in RESULTS.iterdir() if path.is_dir()}
