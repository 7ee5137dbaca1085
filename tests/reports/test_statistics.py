"""Intervals and tests against closed forms."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from reports import statistics


def test_the_interval_is_students() -> None:
    """0, 1, 2: deviation 1, and a t quantile of 4.303 with 2 degrees of freedom."""
    assert statistics.interval([0, 1, 2]) == pytest.approx((1.0, 4.302653 / math.sqrt(3)))
    mean, half_width = statistics.interval([3.0])
    assert mean == 3.0
    assert math.isnan(half_width)
    assert all(map(math.isnan, statistics.interval([])))


def test_a_band_has_an_interval_at_every_step() -> None:
    rows = [{"variant": "A", "step": step, "value": seed + step / 1000} for step in (0, 500) for seed in (0, 1, 2)]
    band = statistics.bands(pd.DataFrame(rows))
    assert band["mean"].tolist() == [1.0, 1.5]
    assert band["half_width"].tolist() == pytest.approx([4.302653 / math.sqrt(3)] * 2)
    assert band["seeds"].tolist() == [3, 3]
    assert statistics.bands(pd.DataFrame(rows[:1]))["half_width"].isna().all()


def test_the_bootstrap_interval_is_near_the_normal_one() -> None:
    """Of many values its half-width is 1.96 standard errors."""
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    low, high = statistics.bootstrap(values)
    error = values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)
    assert statistics.bootstrap([1.0, 1.0, 1.0]) == (1.0, 1.0)
    assert all(map(math.isnan, statistics.bootstrap([1.0, 2.0])))
    assert statistics.bootstrap(values) == (low, high)  # the same every time


def test_the_probability_of_improvement_counts_pairs() -> None:
    assert statistics.improvement([1, 2], [0, 1]) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert statistics.improvement([0], [1]) == 0.0


def test_the_paired_p_value_counts_all_sign_flips() -> None:
    differences = [0.5, 1.0, -0.2, 0.8, 0.4]
    flips = itertools.product((1, -1), repeat=5)
    means = np.array(
        [np.mean([sign * value for sign, value in zip(signs, differences, strict=True)]) for signs in flips]
    )
    exact = float((np.abs(means) >= np.mean(differences) - 1e-12).mean())
    assert statistics.paired_p(differences) == pytest.approx(exact)
    assert statistics.paired_p([1.0] * 10) == pytest.approx(2 / 2**10)
    assert math.isnan(statistics.paired_p([1.0]))


def test_holms_correction() -> None:
    """0.01 x 4, 0.02 x 3, 0.03 x 2, and never less than a smaller one's."""
    assert statistics.holm([0.03, 0.01, 0.02, 0.5]) == pytest.approx([0.06, 0.04, 0.06, 0.5])
    corrected = statistics.holm([math.nan, 0.01])
    assert math.isnan(corrected[0])
    assert corrected[1] == 0.01
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
