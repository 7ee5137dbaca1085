"""Where densities are drawn, and on which scale."""

import numpy as np
import pytest

from benchmark.measures.density import limits, median, usual


def test_limits_are_the_data_s_own_range_and_a_quarter() -> None:
    values = np.linspace(0.0, 4.0, 100_001)
    assert limits(values) == pytest.approx((-1.0, 5.0), abs=0.01)
    assert limits(np.append(values, 1e6))[1] < 6  # one outlier
    assert limits(np.full(10, 3.0)) == (2.25, 3.75)


def test_the_usual_density_is_that_of_half_the_mass() -> None:
    points = np.random.default_rng(0).random((100_000, 2))
    assert usual(points * [2, 5]) == pytest.approx(0.1, rel=0.15)
    assert usual(points[:, :1]) == pytest.approx(1, rel=0.15)
    assert median(np.array([0.1] * 60 + [4.0, 3.0])) == 3.0  # 6 of 13 in the many small ones


def test_a_density_that_is_no_number_has_a_scale_all_the_same() -> None:
    assert median(np.array([np.nan, np.inf])) == 1.0
