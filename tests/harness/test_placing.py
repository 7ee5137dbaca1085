"""Where a method stands among others, from made-up values: intervals, signs, seeds that do not count."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.commands.placed import YOURS, _verdict
from benchmark.measures import placing
from tests.harness.shared import LL


def test_where_lower_is_better_the_sign_turns() -> None:
    table = [pd.DataFrame({"variant": name, "seed": range(4), "test/fid": [v, v + 0.1, v + 0.2, v - 0.1]})
             for name, v in (("Mine", 3.0), ("Other", 5.0))]  # fmt: skip
    table[1]["test/fid"] += [0.01, -0.01, 0.02, 0.0]
    (row,) = placing.against(*table, "test/fid").to_dict("records")
    assert (row["conclusion"], round(row["difference"])) == ("better", -2)


def test_all_intervals_hold_at_once_in_95_of_100_experiments() -> None:
    random, held, rounds = np.random.RandomState(0), 0, 400
    for _ in range(rounds):
        rows = [pd.DataFrame({"variant": f"V{i}", "seed": range(5), LL: random.normal(size=5)}) for i in range(9)]
        found = placing.against(rows[0], pd.concat(rows[1:]), LL)
        held += bool(((found["low"] <= 0) & (found["high"] >= 0)).all())
    assert stats.binomtest(held, rounds, 0.95, alternative="less").pvalue > 0.001
    assert held < rounds  # and not by being infinitely wide


def test_seeds_without_a_finite_value_are_counted_and_not_compared() -> None:
    mine = pd.DataFrame(
        {"variant": f"Mine{YOURS}", "seed": range(5), "state": "done", LL: [0.5, 0.4, 0.6, math.nan, 0.5]}
    )
    mine.loc[4, LL] = -math.inf
    others = pd.DataFrame({"variant": "Other", "seed": range(5), LL: [0.1, 0.2, 0.1, 0.3, 0.1]})
    said = _verdict(f"Mine{YOURS}", placing.against(mine, others, LL), LL, mine)
    assert "over the seeds 0-2 that both have" in said
    assert said.endswith(" 2 of its 5 seeds gave no finite value and are compared with none.")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_seeds_in_common_without_finite_values_are_not_said_to_be_others(value: float) -> None:
    mine = pd.DataFrame({"variant": f"Mine{YOURS}", "seed": range(3), "state": "done", LL: [0.5, 0.4, 0.6]})
    others = pd.DataFrame({"variant": "Other", "seed": range(3), LL: value})
    away = pd.DataFrame({"variant": "Away", "seed": range(7, 9), LL: 0.1})
    compared = placing.against(mine, pd.concat([others, away]), LL)
    assert dict(zip(compared["variant"], compared["conclusion"], strict=True)) == {
        "Other": "no two seeds with finite values",
        "Away": "no two seeds in common",
    }
    assert placing.verdict("Mine", compared, LL) == (
        "Mine cannot be compared: it has no two seeds in common with 1 of 2 variants, and no two seeds have finite "
        "values in both it and 1 of 2 variants."
    )
    said = placing.verdict("Mine", placing.against(mine, others, LL), LL)
    assert said == "Mine cannot be compared: no two seeds have finite values in both it and any of 1 variants."
    swapped = placing.against(others.assign(variant=f"Mine{YOURS}", state="done"), mine.assign(variant="Other"), LL)
    assert list(swapped["conclusion"]) == ["no two seeds with finite values"]  # and yours did not diverge


def test_an_end_that_is_not_0_is_not_written_so() -> None:
    """ "-7.0 to 0.0, worse" reads as a contradiction."""
    row = {"variant": "CD-1", "difference": -3.5, "low": -7.0, "high": -0.0102}
    assert placing.numbers(row) == ["-3.5", "-7.0", "-0.010"]
    assert placing.numbers({**row, "high": 0.0}) == ["-3.5", "-7.0", "0"]
