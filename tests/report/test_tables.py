"""Tables of the page."""

from __future__ import annotations

from rl_scaling.report.tables import goals_table
from tests.report.synthetic import known_fit, sweep_rows


def test_the_table_of_goals_sets_reuse_beside_first_use_where_there_is_any() -> None:
    fits = known_fit(sweep_rows((20, 80, 320, 1280), seeds=(0,), rows=30, frames=3_000_000), [1.0, 4.0]).fits
    heading = "The same where frames are used again"
    assert heading not in goals_table(fits)
    again = goals_table(fits.assign(noise_scale_reuse_low=777.0))
    assert heading in again
    assert again.count("at least 777") == 2
