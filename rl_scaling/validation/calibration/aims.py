"""What a row of the calibration should show."""

from __future__ import annotations

from collections.abc import Mapping

# Where more series are unresolved, the mean over the resolved ones is one of a selection: those in which chance made
# |G|^2 large and B_simple small.
MOST_UNRESOLVED = 0.01
LARGEST_BIAS = 0.02
LOWEST_COVERAGE, HIGHEST_COVERAGE = 0.93, 0.97

Row = Mapping[str, float | str]


def is_resolved(row: Row) -> bool:
    """Fewer than 1 in 100 series are unresolved."""
    return float(row["unresolved"]) < MOST_UNRESOLVED


def bias_is_met(row: Row) -> bool:
    """The mean is within 2 % of the truth."""
    return abs(float(row["bias"])) < LARGEST_BIAS


def coverage_is_met(row: Row) -> bool:
    """93 to 97 % of the intervals contain the truth."""
    return LOWEST_COVERAGE <= float(row["coverage"]) <= HIGHEST_COVERAGE
