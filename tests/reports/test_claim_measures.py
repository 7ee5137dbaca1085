"""What the measures of claims see, against closed forms."""

import math

import numpy as np
import pandas as pd
import pytest

from reports.claims.claim import (
    Place,
    ratio,
)
from reports.claims.curves import fall, iterations, rise
from reports.claims.measures import (
    Cost,
    EqualTime,
    Rise,
    Straight,
)
from reports.claims.shown import would_decide
from reports.claims.verdict import (
    FAILS,
    HOLDS,
    OPEN,
    Finding,
)
from tests.reports.stores import Held, held, look, sweep

AT = Place("grbm", "paper", "board", 1000)


def curve(points: dict[int, float]) -> pd.Series:
    return pd.Series(points, dtype=float)


def test_iterations_to_a_share_of_the_way() -> None:
    """From -1 to 1: 0.9 is 95% of the way, half-way between the evaluations at 100 and 200."""
    there = curve({0: -1.0, 100: 0.8, 200: 1.0, 900: 0.99, 1000: 1.01})
    assert iterations(there, 0.95, high=True) == pytest.approx(150)
    assert iterations(-there, 0.95, high=False) == pytest.approx(150)
    assert iterations(curve({0: 1.0, 100: 0.5, 1000: 0.9}), 0.95, high=True) == math.inf


def test_how_far_curves_fall_and_rise() -> None:
    found = curve({0: 100.0, 100: 5.0, 200: 6.0, 300: 2.0, 400: 3.0, 900: 1.5, 1000: 0.5})
    assert fall(found) == pytest.approx(math.log(100))
    assert rise(found) == pytest.approx(math.log(1.5))
    assert rise(curve({0: 3.0, 1: 2.0, 2: 1.0})) == 0
    assert math.isnan(fall(curve({0: 1.0, 1: -1.0})))


def test_of_curves_with_gaps_and_of_few_points_nothing_is_known() -> None:
    """A training that was not finite for a while is not stable, and neither its fall nor its speed is known."""
    gap = curve({0: 3.0, 100: math.nan, 200: 2.0, 1000: 1.0})
    assert rise(gap) == math.inf
    assert math.isnan(fall(gap))
    assert math.isnan(iterations(gap, 0.95, high=False))
    late = curve({100: 3.0, 200: 2.0, 1000: 1.0})  # of which the start is not known
    assert math.isnan(fall(late))
    assert math.isnan(iterations(late, 0.95, high=False))
    runs, metric = Held(), "train/objective"
    for seed, count in enumerate((10, 11)):
        run = runs.add("A", "m", seed, **{metric: 1.0})
        runs.values[run, metric] = [(step, 1.0 + (step == 5)) for step in range(count)]
    for seed, value in ((2, math.inf), (3, math.nan)):
        run = runs.add("A", "m", seed, **{metric: 1.0})
        runs.values[run, metric] = [(step, value if step == 5 else 1.0) for step in range(11)]
    found = Rise(metric).values(sweep(runs), "board", ["A"])["A"]
    assert found.to_dict() == {1: math.log(2), 2: math.inf, 3: math.inf}


def test_equal_time_is_that_of_the_fastest() -> None:
    """A ends after 10 s at 5; B, twice as slow, is at 4 by then and at 1 in the end."""
    runs, metric = Held(), "val/fisher_divergence"
    for variant, points, seconds in (("A", [9.0, 7.0, 5.0], 5.0), ("B", [9.0, 4.0, 1.0], 10.0)):
        run = runs.add(variant, "m", 0, **{metric: points[-1], "time/train_seconds": 2 * seconds})
        runs.values[run, metric] = list(enumerate(points))
        runs.values[run, "time/train_seconds"] = [(step, step * seconds) for step in range(3)]
    found = EqualTime(metric).values(sweep(runs), "board", ["A", "B"])
    assert found.loc[0].to_dict() == {"A": 5.0, "B": 4.0}
    run = runs.rows[0]["run"]
    runs.values[run, metric] = [(0, 9.0), (1, math.inf), (2, math.inf)]  # it takes its 10 s, whatever becomes of it
    found = EqualTime(metric).values(sweep(runs), "board", ["A", "B"])
    assert found.loc[0].to_dict() == {"A": 9.0, "B": 4.0}


def test_times_are_known_within_a_factor_and_compared_where_they_were_taken_alike() -> None:
    (one,) = ratio(AT, Cost(), "A", ["B"], None, 3.0)

    def timed(milliseconds: float, **of_a: str) -> Finding:
        runs = Held()
        for seed in range(2):
            runs.add("A", "m", seed, **{"time/ms_per_step": milliseconds, "host": "x", **of_a})
            runs.add("B", "m", seed, **{"time/ms_per_step": 1.0, "host": "x"})
        return look(one, runs)

    assert [timed(ms).state for ms in (2.3, 2.5, 3.5, 3.8)] == [HOLDS, OPEN, OPEN, FAILS]
    assert (timed(2.0).low, timed(2.0).high) == pytest.approx((math.log(1.6), math.log(2.5)))
    assert "nearer to the margin" in would_decide(timed(2.5))
    other = timed(2.0, host="y")
    assert (other.state, other.reason) == (OPEN, "times were not taken alike: host x and y")
    assert timed(2.0, host="").reason == "times were not taken alike: host not known and x"
    gone = held({"A": [1.0, 1.0], "B": [1.0, 1.0]}, **{"time/ms_per_step": 1.0})
    gone.rows[0]["state"] = "diverged"  # its iterations took as long as others
    assert (look(one, gone).state, look(one, gone).effect, look(one, gone).diverged) == (HOLDS, 0.0, {"A": 1})
    several = "times were not taken alike: other seeds side by side"
    runs = held({"A": [1.0], "B": [1.0, 1.0]}, **{"time/ms_per_step": 1.0})
    assert look(one, runs).reason == several
    for of_seeds, reason in (([1.1, 1.1, 1.5, 1.5], ""), ([1.1] * 4, several), ([1.1, 1.2], several)):
        runs = held({"A": [1.0, 1.0], "B": [1.0] * len(of_seeds)}, **{"time/ms_per_step": 1.0})
        for seed, milliseconds in enumerate(of_seeds):  # those of a job share one number: B's may be of two jobs
            runs.rows[2 + seed]["time/ms_per_step"] = milliseconds
        assert look(one, runs).reason == reason


def test_how_straight_a_decay_is() -> None:
    names = Straight("bias/N{N}", (1, 2, 5, 10)).metrics
    assert names == ("bias/N1", "bias/N2", "bias/N5", "bias/N10")
    runs = Held()
    bent = [3.0, 1.0, 0.9, 0.8]
    runs.add("A", "m", 0, **{name: 2 * 0.9**n for name, n in zip(names, (1, 2, 5, 10), strict=True)})
    runs.add("A", "m", 1, **dict(zip(names, bent, strict=True)))
    runs.add("A", "m", 2, **dict(zip(names, [1.0, 0.5, 0.0, 0.1], strict=True)))  # no logarithm
    found = Straight("bias/N{N}", (1, 2, 5, 10)).values(sweep(runs), "board", ["A"])["A"]
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(np.corrcoef([1, 2, 5, 10], np.log(bent))[0, 1] ** 2)
    assert math.isnan(found[2])
