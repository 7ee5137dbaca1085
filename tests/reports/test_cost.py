"""The cost of methods beside their quality, as figures and tables."""

import math

import numpy as np
import pandas as pd
import pytest

from reports import off_scale
from reports.artefacts import cost, figure3, summary
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


def test_intervals_wider_than_the_differences_are_shown_whole_in_the_summary() -> None:
    """Two of four variants differ by 0.05 and have intervals of ± 0.7: the axis was from 3.47 to 3.75."""
    frame = pd.DataFrame({"variant": ["A", "B", "C", "D"], "mean": [3.67, 3.62, 1.31, 1.31],
                          "± 95%": [0.35, 0.7, 0.97, 0.97]})  # fmt: skip
    figure, off, cut = summary.draw(frame, dict.fromkeys(frame["variant"], BEFORE["bidsm"]), LL)
    low, high = figure.axes[0].get_xlim()
    assert (off, cut) == (0, False)
    assert -0.5 < low < 0.34 < 4.32 < high < 5.0
    frame["mean"] = [3.67, 3.62, 1.31, -900.0]
    assert summary.draw(frame, dict.fromkeys(frame["variant"], BEFORE["bidsm"]), LL)[1:] == (1, False)


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


def summed_up(means: dict[str, float]) -> pd.DataFrame:
    """Best first, with intervals of ± 0.5."""
    return pd.DataFrame({"variant": list(means), "mean": list(means.values()), "± 95%": 0.5})


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_fits_between_the_ends_of_the_axis_stands_in_its_place(sign: float) -> None:
    """The digits of grbm's preset quick: 18.0 was an arrow at 16, on an axis from 15 on."""
    ends = (39.8, 39.7, 38.4, 36.8, 36.6, 36.4, 33.8, 29.1, 27.6, 26.4, 20.2, 18.0, -17.9, -20.2)
    frame = summed_up({f"{end}": sign * end for end in ends})
    metric = LL if sign > 0 else FD
    figure, off, cut = summary.draw(frame, dict.fromkeys(frame["variant"], BEFORE["dsm"]), metric)
    (axes,) = figure.axes
    drawn = {str(line.get_gid()): line for line in axes.lines}
    assert (off, cut) == (2, False)
    assert list(np.asarray(drawn["18.0"].get_xdata())) == [sign * 18.0]
    assert list(np.asarray(drawn["_18.0"].get_xdata())) == [sign * 18.0 - 0.5, sign * 18.0 + 0.5]
    arrows = {float(np.asarray(drawn[name].get_xdata())[0]) for name in ("-17.9", "-20.2")}
    low, high = axes.get_xlim()
    assert len(arrows) == 1
    assert all(low < place < high for place in arrows)


@pytest.mark.parametrize("high", [True, False])
def test_no_value_off_an_axis_lies_between_its_ends(high: bool) -> None:
    draws = np.random.default_rng(0)
    for _ in range(500):
        values = 10 + draws.standard_cauchy(12)
        axis = off_scale.axis(values, values, high)
        assert axis is not None
        off = values[axis.beyond(values)]
        assert not ((off > axis.low) & (off < axis.high)).any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_triangle_of_the_cost_stands_for_a_value_within_the_axis(sign: float) -> None:
    values = [1.0, 0.95, 0.9, 0.3, 0.25, -9.0, -9.5, -10.0]
    frame = pd.DataFrame({"variant": [str(value) for value in values], "quality": [sign * value for value in values],
                          "± 95%": 0.0, "ms per iteration and seed": 1.0})  # fmt: skip
    figure, off = cost.draw(frame, dict.fromkeys(frame["variant"], BEFORE["dsm"]), LL if sign > 0 else FD)
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    hollow = {str(line.get_gid()) for line in axes.lines if line.get_markerfacecolor() == "none"}
    assert off
    assert hollow == {"-9.0", "-9.5", "-10.0"}
    assert all(low < sign * float(value) < high for value in map(str, values) if value not in hollow)


def test_times_are_by_the_processor_s_clock_where_all_have_it() -> None:
    held = learning(Held(), {"CD-5": ("cd", 0.4), "SM": ("sm", 0.5)}, **TIMED, **{"time/processor_ms_per_step": 1.5})
    made = built(cost, held)["cost-board"]
    assert made.figure is not None
    assert made.numbers["ms per iteration and seed"].tolist() == [1.5, 1.5]
    assert made.numbers["ms of the wall's clock"].tolist() == [3.0, 3.0]
    assert made.figure.axes[0].get_xlabel() == "ms of processor time per iteration and seed"
    assert "time of an iteration (processor time, on cpu" in made.caption
    learning(held, {"DSM": ("dsm", 0.3)}, **TIMED)
    made = built(cost, held)["cost-board"]
    assert made.figure is not None
    assert made.numbers["ms per iteration and seed"].tolist() == [3.0] * 3
    assert made.numbers["ms of processor time"].tolist()[:2] == [1.5, 1.5]
    assert made.figure.axes[0].get_xlabel() == "ms per iteration and seed"
    assert "(training clock, on cpu" in made.caption


def test_captions_say_of_which_machines_times_are_where_these_differ() -> None:
    ours = {"host": "here", "machine": "AMD EPYC, 2 cores", "source": ""}
    held = learning(Held(), {"CD-5": ("cd", 0.4)}, **ours)
    for artefact in (built(cost, held)["cost-board"], built(figure3, held)["convergence-board"]):
        assert "machine" not in artefact.caption
    learning(held, {"CD-5 (reference)": ("cd", 0.5)}, machine="AMD EPYC, 1 core", source="reference")
    for artefact in (built(cost, held)["cost-board"], built(figure3, held)["convergence-board"]):
        assert "of different machines, and compare no further than these do: AMD EPYC, 1 core (reference); here, AMD " \
               "EPYC, 2 cores." in artefact.caption  # fmt: skip
