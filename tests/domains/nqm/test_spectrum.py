from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.domains.nqm.spectrum import Spectrum, power_sums
from tests.domains.nqm.reference import published_spectrum


@given(st.lists(st.integers(1, 3000), min_size=2, max_size=8, unique=True), st.floats(-1, 12) | st.just(1.0))
def test_power_sums_equal_the_listed_sums(edges: list[int], exponent: float) -> None:
    edges.sort()
    powers = np.arange(1, 3001, dtype=float) ** -exponent
    expected = [powers[a - 1 : b - 1].sum() for a, b in pairwise(edges)]
    np.testing.assert_allclose(power_sums(np.array(edges), exponent), expected, rtol=1e-12)


@given(
    st.integers(1, 5000),
    st.floats(0, 2.5),
    st.floats(0, 2.5),
    st.floats(-1, 1),
    st.floats(0.1, 10),
    st.integers(1, 300),
)
def test_compression_keeps_count_trace_noise_and_initial_risk(
    dimensions: int, exponent: float, noise_exponent: float, initial_exponent: float, scale: float, bins: int
) -> None:
    i = np.arange(1, dimensions + 1, dtype=float)
    h, c, start = scale * i**-exponent, scale * i**-noise_exponent, i**-initial_exponent
    short = Spectrum.power_law(
        dimensions, exponent, scale=scale, noise_exponent=noise_exponent, initial_exponent=initial_exponent, bins=bins
    )
    for groups in (short, Spectrum.from_eigenvalues(h, c, start).compressed(bins)):
        assert groups.dimensions == dimensions
        assert groups.trace == pytest.approx(h.sum(), rel=1e-11)
        assert groups.counts @ groups.noise == pytest.approx(c.sum(), rel=1e-11)
        assert groups.initial_risk == pytest.approx(0.5 * h @ start, rel=1e-11)
        assert len(groups.counts) <= bins + 1


def test_a_hundred_million_dimensions_take_no_memory() -> None:
    groups = Spectrum.power_law(10**8)
    assert len(groups.counts) <= 128
    assert groups.dimensions == 10**8
    assert groups.trace == pytest.approx(np.log(1e8) + np.euler_gamma + 0.5e-8, rel=1e-13)


def test_the_published_spectrum() -> None:
    edges, counts = published_spectrum()
    groups = Spectrum.published()
    np.testing.assert_allclose(groups.eigenvalues, edges, rtol=1e-13)
    np.testing.assert_array_equal(groups.counts, counts)
    np.testing.assert_array_equal(groups.noise, groups.eigenvalues)
    assert len(counts) == 84


@given(st.floats(0, 1))
def test_a_preconditioner_leaves_the_risk_of_the_start(power: float) -> None:
    problem = Spectrum.power_law(500, 1.2, noise_exponent=0.8, initial_exponent=0.3)
    assert problem.preconditioned(power).initial_risk == pytest.approx(problem.initial_risk, rel=1e-13)


def test_files(tmp_path: Path) -> None:
    values = np.array([0.1, 2.0, 0.5])
    np.savetxt(tmp_path / "a.txt", values)
    np.save(tmp_path / "a.npy", values)
    for name in ("a.txt", "a.npy"):
        groups = Spectrum.from_file(tmp_path / name)
        np.testing.assert_array_equal(groups.eigenvalues, [2.0, 0.5, 0.1])
        np.testing.assert_array_equal(groups.noise, groups.eigenvalues)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "at least one"), ("1\nnan\n", "NaN"), ("1\n-2\n", "positive"), ("0\n", "positive"), ("a", "a")],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "spectrum.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Spectrum.from_file(path)
    assert "spectrum.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_spectra() -> None:
    for values in ([], [1.0, np.inf], [1.0, -1.0], [[1.0], [2.0]]):
        with pytest.raises(ValueError, match="eigenvalues"):
            Spectrum.from_eigenvalues(values)
    with pytest.raises(ValueError, match="power"):
        Spectrum.power_law().preconditioned(1.1)
    for size in (0, 10.5):
        with pytest.raises(ValueError, match=f"dimensions is {size}: give a whole number"):
            Spectrum.power_law(size)  # pyright: ignore[reportArgumentType] - what a user may try
    with pytest.raises(ValueError, match="exponents"):
        Spectrum.power_law(noise_exponent=np.nan)
    with pytest.raises(ValueError, match=r"noise has the shape \(3,\): give one number, or 2 as of eigenvalues"):
        Spectrum.from_eigenvalues([1.0, 0.5], noise=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="scale"):
        Spectrum.power_law(scale=np.nan)
    with pytest.raises(ValueError, match="fall"):
        Spectrum(*np.ones((2, 2)).cumsum(axis=1).repeat(2, axis=0))
