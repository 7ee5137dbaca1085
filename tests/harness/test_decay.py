"""The fitted rate of decay and its interval."""

import math

import numpy as np
import pytest

from benchmark.measures.decay import decay_rate


def test_an_exact_exponential_is_found() -> None:
    found = decay_rate([0, 1, 2, 5, 10], [9.0] + [3 * 0.8**n for n in (1, 2, 5, 10)], first=1, last=10)
    assert found.slope == pytest.approx(math.log(0.8))
    assert found.kappa == pytest.approx(0.8)
    assert found.low == pytest.approx(found.high)
    assert (found.first, found.last, found.points) == (1, 10, 4)  # N = 0 is not on the line, and not in the range


def test_the_interval_by_hand() -> None:
    # residuals (1, -2, 1) / 6 * 0.3 about the line -N: s^2 = sum r^2 / 1, standard error s / sqrt(2), t_1 = 12.7062
    bias = [math.exp(-n + r) for n, r in zip((1, 2, 3), (0.05, -0.1, 0.05), strict=True)]
    found = decay_rate([1, 2, 3], bias)
    half = 12.7062 * math.sqrt(0.05**2 + 0.1**2 + 0.05**2) / math.sqrt(2)
    assert found.slope == pytest.approx(-1)
    assert (found.low, found.high) == pytest.approx((-1 - half, -1 + half), rel=1e-5)


def test_the_interval_covers_95_times_in_100() -> None:
    random, n = np.random.default_rng(0), list(range(1, 9))
    held = 0
    for _ in range(2000):
        found = decay_rate(n, np.exp(-0.1 * np.array(n) + 0.3 * random.standard_normal(8)).tolist())
        held += found.low < -0.1 < found.high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_what_has_no_rate_says_so() -> None:
    with pytest.raises(ValueError, match="at least 3 points with 5 <= N <= 40, got 1"):
        decay_rate([0, 1, 7], [1.0, 0.5, 0.1], first=5)
    with pytest.raises(ValueError, match="positive and finite"):
        decay_rate([1, 2, 3], [1.0, 0.0, 0.1])
