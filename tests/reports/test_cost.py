"""The cost of methods beside their quality, as figures and tables."""

import math

import numpy as np
import pandas as pd
import pytest

from reports.artefacts import cost, summary
from reports.methods import BEFORE
from tests.reports.stores import FD, LL, Held, built, learning

TIMED = {"threads": "1", "jobs_beside": "1"}


def test_times_of_compiled_and_of_other_code_are_not_drawn_beside_each_other() -> None:
    held = learning(Held(), {"CD-5": ("cd", 0.4), "SM": ("sm", 0.5), "SSM": ("ssm", 0.6)}, compiled="true", **TIMED)
    learning(held, {"DSM": ("dsm", 0.3)}, compiled="false", **TIMED)
    made = built(cost, held)["cost-board"]
    assert made.figure is not None
    drawn = {text.get_text() for text in made.figure.axes[0].texts}
    assert drawn == {"CD-5", "SM", "SSM"}
    assert set(made.numbers["variant"]) == {"CD-5", "SM", "SSM", "DSM"}
    assert "Not drawn, since their steps were not compiled and the others' were: DSM." in made.caption
    assert "compiled, on cpu, 1 thread, beside 1 other job; not compiled, on cpu, 1 thread" in made.caption


@pytest.mark.parametrize("compiled", ["true", "false"])
def test_a_figure_of_uncompiled_times_says_so(compiled: str) -> None:
    held = learning(Held(), {"CD-5": ("cd", 0.4), "SM": ("sm", 0.5)}, compiled=compiled, **TIMED)
    made = built(cost, held)["cost-board"]
    assert made.figure is not None
    assert ("No time is one of compiled code" in made.caption) == (compiled == "false")
    assert "Not drawn" not in made.caption


def test_cost_and_the_time_to_most_of_the_gain() -> None:
    row = built(cost, learning(Held(), {"CD-5": ("cd", 0.4)}))["cost-board"].numbers.iloc[0]
    assert row["ms per iteration and seed"] == 3.0
    assert row["s of training"] == 21.0
    assert (row["iterations to 0.389"], row["s to 0.389"]) == (100, 3.0)
    assert row["peak memory (GB)"] == 0.5


def test_all_are_timed_to_one_level_which_is_said() -> None:
    """What ends far below the best does not reach it, however soon it has made its own way."""
    made = built(cost, learning(Held(), {"CD-10": ("cd", 0.5), "CD-5": ("cd", 0.4), "Mine": ("mine", 0.2)}))
    times = made["cost-board"].numbers.set_index("variant")["iterations to 0.484"]
    assert times.loc["CD-10"] == 100
    assert times.loc[["CD-5", "Mine"]].isna().all()
    caption = made["cost-board"].caption
    assert "mean curve of test log-likelihood" in caption
    assert "from the initial models (0, the median variant's) to the best mean at the end (0.510)" in caption
    assert "every 500 iterations" in caption  # steps 0, 100, 1000: the median
    held = Held()
    for variant in ("A", "B"):
        curves = {FD: lambda seed, step: -float(step), "time/train_seconds": lambda seed, step: float(step)}
        held.add(variant, "dsm", 0, curves=curves, **{LL: 1.0, "time/ms_per_step": 1.0})
    assert "s to −950 of Fisher divergence" in built(cost, held)["cost-board"].numbers


def test_a_wide_interval_leaves_the_others_room_in_the_summary() -> None:
    names = ["CD-5", "BiDSM-5", "Wide"]
    frame = pd.DataFrame({"variant": names, "mean": [0.5, 0.4, 0.3], "± 95%": [0.01, 0.02, 1900.0]})
    methods = {name: BEFORE[one] for name, one in zip(names, ["cd", "bidsm", "dsm"], strict=True)}
    figure, off, cut = summary.draw(frame, methods, LL)
    low, high = figure.axes[0].get_xlim()
    assert (off, cut) == (0, True)
    assert 0.0 < low < 0.3 < 0.5 < high < 0.8
    frame["± 95%"] = [0.01, 0.02, 0.05]
    assert summary.draw(frame, methods, LL)[1:] == (0, False)


def quality() -> pd.DataFrame:
    rows = {"CD-1": (1.0, 0.5), "CD-5": (0.9, 0.0), "CD-10": (0.8, math.nan), "SM": (0.85, 0.0), "DSM": (-9.0, 1.0),
            "SSM": (-8.0, 1.0)}  # fmt: skip
    return pd.DataFrame([{"variant": name, "quality": value, "± 95%": half, "ms per iteration and seed": ms}
                         for (name, (value, half)), ms in zip(rows.items(), (1, 1.01, 2, 9, 3, 3), strict=True)]
                        )  # fmt: skip


def test_what_is_far_off_is_a_hollow_triangle_at_the_edge() -> None:
    frame = quality()
    methods = {
        variant: BEFORE[one]
        for variant, one in zip(frame["variant"], ["cd", "cd", "cd", "sm", "dsm", "ssm"], strict=True)
    }
    figure, off = cost.draw(frame, methods, LL)
    (axes,), (low, high) = figure.axes, figure.axes[0].get_ylim()
    assert off
    assert low < 0.5
    assert high > 1.5  # the whole interval of CD-1
    assert low > 0.0
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [line.get_marker() for line in hollow] == ["v", "v"]
    heights = [float(np.asarray(line.get_ydata())[0]) for line in hollow]
    assert len(set(heights)) == 2  # of equal cost, and so above one another
    assert all(low < height < 0.5 for height in heights)
    assert {text.get_text() for text in axes.texts} >= {"DSM (−9.00)", "SSM (−8.00)"}


def test_where_nothing_gets_better_there_is_no_level() -> None:
    timed = pd.DataFrame({"variant": "A", "step": [0, 1], "value": [1.0, 0.0], "seconds": [0.0, 1.0]})
    assert cost.goal(timed, high=True) is None
    assert cost.goal(timed, high=False) == pytest.approx((1.0, 0.05, 0.0))
    assert cost.reached(timed, 0.05, high=False) == (1, 1.0)
    assert all(map(math.isnan, cost.reached(timed, -0.05, high=False)))


def test_what_was_not_compiled_has_no_time_of_compiling() -> None:
    held = learning(Held(), {"CD-5": ("cd", 0.4)}, compiled="false", **TIMED)
    assert "s compiling" not in built(cost, held)["cost-board"].numbers
    learning(held, {"SM": ("sm", 0.5)}, compiled="true", **TIMED)
    times = built(cost, held)["cost-board"].numbers.set_index("variant")["s compiling"]
    assert times["SM"] == 3.0
    assert math.isnan(times["CD-5"])
