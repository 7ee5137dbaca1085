"""Tables and comparisons have the numbers of the cells they are given."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from reports import paper
from reports.artefact import Artefact, Table, fixed
from reports.artefacts import bounds, cost, failures, ranking, table1, table2
from tests.reports.held import BOTH, FD, LL, Held, built, frey, incomplete, learning

# --- how cells ended --------------------------------------------------------------------------------------------------


def test_states_are_counted_and_listed() -> None:
    found = built(failures, incomplete())
    table = found["states"].numbers.set_index("variant")
    assert table.loc["CD-5", ["cells", "done", "failed", "planned", "diverged"]].tolist() == [5, 3, 1, 1, 0]
    assert table.loc["BiDSM-5", ["done", "diverged"]].tolist() == [3, 1]
    listed = found["not-done"].numbers
    assert set(zip(listed["variant"], listed["seed"], listed["state"], strict=True)) == {
        ("CD-5", 3, "failed"), ("CD-5", 4, "planned"), ("BiDSM-5", 3, "diverged"),
    }  # fmt: skip
    assert "not-done" not in built(failures, learning(Held(), BOTH))


def test_a_cell_that_was_not_begun_has_no_run() -> None:
    held = incomplete()
    held.rows[-2]["run"] = ""  # as the store has planned cells
    found = built(failures, held)
    assert len(found["states"].runs) == 14
    assert "" not in [*found["states"].runs, *found["not-done"].runs]


def test_one_variant_is_not_ranked() -> None:
    held = learning(Held(), {"CD-5": ("cd", 0.4)})
    assert built(ranking, held) == {}
    assert built(cost, held)["cost-board"].figure is None


# --- ranking and comparisons ------------------------------------------------------------------------------------------


def test_the_ranking_averages_what_is_done() -> None:
    table = built(ranking, incomplete())["ranking-board"].numbers
    assert table["variant"].tolist() == ["CD-10", "CD-5", "BiDSM-5", "Mine"]
    row = table.set_index("variant").loc["CD-5"]
    assert row["mean"] == pytest.approx(0.41)
    assert row["± 95%"] == pytest.approx(4.302653 * 0.01 / math.sqrt(3))
    assert (row["seeds"], row["diverged"], row["missing"]) == (3, 0, 2)
    assert (row["worst"], row["best"]) == pytest.approx((0.4, 0.42))
    assert table.set_index("variant").loc["BiDSM-5", "diverged"] == 1


def test_the_lowest_divergence_is_the_best() -> None:
    held = Held()
    for variant, value in (("A", -5.0), ("B", -9.0)):
        held.add(variant, "dsm", 0, **{FD: value})
    assert built(ranking, held)["ranking-board"].numbers["variant"].tolist() == ["B", "A"]


def test_the_value_of_a_cell_is_where_its_rule_stopped() -> None:
    held = Held()
    held.add("A", "dsm", 0, **{FD: -5.0, f"selected/{FD}": -7.0})
    held.add("B", "dsm", 0, **{FD: -6.0})
    assert built(ranking, held)["ranking-board"].numbers["mean"].tolist() == [-7.0, -6.0]


def test_comparisons_are_paired_by_seed() -> None:
    """B is 1 below A in every common seed, though its other seed is the best of all."""
    cells = pd.DataFrame(
        [{"seed": seed, "variant": "A", "value": 10.0 * seed} for seed in range(5)]
        + [{"seed": seed, "variant": "B", "value": 10.0 * seed - 1} for seed in range(5)]
        + [{"seed": 9, "variant": "C", "value": 0.0}]
    )
    found = ranking.against_best(cells, high=True)
    assert found.attrs["best"] == "A"
    assert found["variant"].tolist() == ["B"]
    row = found.iloc[0]
    assert (row["difference"], row["low"], row["high"]) == (-1.0, -1.0, -1.0)
    assert row["P(best is better)"] == 15 / 25
    assert row["p"] == row["p (Holm)"] == pytest.approx(2 / 2**5)
    assert ranking.against_best(cells[:5], high=True).empty


def comparisons(seeds: int) -> tuple[Artefact, Figure]:
    artefact = built(ranking, learning(Held(), BOTH, seeds=seeds))["comparisons-board"]
    assert artefact.figure is not None
    return artefact, artefact.figure


def test_no_row_of_the_comparisons_is_cut() -> None:
    (axes,) = comparisons(3)[1].axes
    low, high = sorted(axes.get_ylim())
    assert low < -0.5
    assert high > 2.5


def test_two_seeds_have_no_interval_and_that_is_said() -> None:
    artefact, _ = comparisons(2)
    assert "none is known of fewer than three seeds" in artefact.caption
    assert artefact.table is not None
    assert "low" not in artefact.table.frame
    assert "fewer than three" not in comparisons(3)[0].caption


def test_an_axis_that_is_logarithmic_in_part_is_said() -> None:
    held = learning(Held(), {"CD-1": ("cd", 0.5), "CD-5": ("cd", 0.4), "CD-10": ("cd", 0.39), "SM": ("sm", -90.0)})
    artefact = built(ranking, held)["comparisons-board"]
    assert "linear up to ±0.110 and logarithmic beyond" in artefact.caption
    assert "logarithmic" not in comparisons(3)[0].caption


def test_a_small_bound_keeps_its_digits() -> None:
    assert fixed([-0.0004, -65.0], 1, least=3, sign="+").format(-0.0004) == "-0.0004"
    assert fixed([1600.3, 40.0], 3).format(1600.3) == "1,600.3"
    assert [fixed([0.1, 0.0663], 3).format(value) for value in (0.1, 0.0663)] == ["0.1000", "0.0663"]
    assert fixed([math.nan, 0.0], least=3) == "{:,.3f}"


# --- cost -------------------------------------------------------------------------------------------------------------


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
    assert (row["iterations to 95%"], row["s to 95%"]) == (100, 3.0)
    assert row["peak memory (GB)"] == 0.5


def test_the_time_to_most_of_the_gain_says_of_what_from_where_and_how_finely() -> None:
    caption = built(cost, learning(Held(), BOTH))["cost-board"].caption
    assert "mean curve of test log-likelihood" in caption
    assert "from the initial model" in caption
    assert "every 500 iterations" in caption  # steps 0, 100, 1000: the median
    held = Held()
    for variant in ("A", "B"):
        curves = {FD: lambda seed, step: -float(step), "time/train_seconds": lambda seed, step: float(step)}
        held.add(variant, "dsm", 0, curves=curves, **{LL: 1.0, "time/ms_per_step": 1.0})
    assert "s to 95% of Fisher divergence" in built(cost, held)["cost-board"].numbers


def quality() -> pd.DataFrame:
    rows = {"CD-1": (1.0, 0.5), "CD-5": (0.9, 0.0), "CD-10": (0.8, math.nan), "SM": (0.85, 0.0), "DSM": (-9.0, 1.0),
            "SSM": (-8.0, 1.0)}  # fmt: skip
    return pd.DataFrame([{"variant": name, "quality": value, "± 95%": half, "ms per iteration and seed": ms}
                         for (name, (value, half)), ms in zip(rows.items(), (1, 1.01, 2, 9, 3, 3), strict=True)]
                        )  # fmt: skip


def test_what_is_far_off_is_a_hollow_triangle_at_the_edge() -> None:
    frame = quality()
    cells = pd.DataFrame({"variant": frame["variant"], "method": ["cd", "cd", "cd", "sm", "dsm", "ssm"]})
    figure, off = cost.draw(frame, cells, LL)
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


def test_a_curve_that_ends_below_its_start_has_no_such_time() -> None:
    timed = pd.DataFrame({"step": [0, 1], "value": [1.0, 0.0], "seconds": [0.0, 1.0]})
    assert all(map(math.isnan, cost.reached(timed, high=True)))
    assert cost.reached(timed, high=False) == (1, 1.0)


# --- the paper's tables -----------------------------------------------------------------------------------------------


def test_table1_is_beside_the_papers() -> None:
    held = frey({"DSM": [(129.0, -5885.0), (131.0, -5885.2)], "BiDSM-0": [(90.0, -5400.0), (90.2, -5400.0)]})
    table = built(table1, held, suite="freyface")["table1"].numbers.set_index(["measure", "variant"])
    row = table.loc["log-likelihood", "DSM"]
    assert row["ours"] == 130.0
    assert row["± 95%"] == pytest.approx(12.706205)
    assert row["paper"] == paper.TABLE1["DSM"][0]
    assert row["difference"] == pytest.approx(130.0 - 129.23)
    assert row["within"] == "yes*"  # of two seeds
    assert table.loc[("log-likelihood", "BiDSM-0"), "within"] == "no*"
    assert table.loc[("Fisher divergence", "DSM"), "ours"] == pytest.approx(-5885.1)
    assert built(table1, frey({"Mine": [(1, 1)]}), suite="freyface") == {}


@pytest.mark.parametrize(
    ("half_width", "printed", "said"),
    [(2.0, 11.9, "yes"), (2.0, 8.1, "yes"), (2.0, 12.1, "no"), (2.0, 7.9, "no"), (math.nan, 10.0, ""), (2.0, None, "")],
)
def test_within_is_inside_the_interval(half_width: float, printed: float | None, said: str) -> None:
    assert table1.within(10.0, half_width, printed, seeds=3) == said
    assert table1.within(10.0, half_width, printed, seeds=2) == said + ("*" if said else "")


def test_one_seed_has_no_interval_to_be_within() -> None:
    table = built(table1, frey({"DSM": [(129.23, -5885.09)]}), suite="freyface")["table1"].numbers
    assert table["within"].tolist() == ["", ""]


def test_table2_names_what_only_the_paper_has() -> None:
    held = Held()
    for seed in range(2):
        held.add("BiMDSM-0", "bimdsm", seed, suite="cifar10", task="cifar10", paper_label="BiMDSM (20)",
                 **{"test/fid": 35.0 + seed, "selected/test/fid": 27.0})  # fmt: skip
    table = built(table2, held, suite="cifar10")["table2"].numbers.set_index("variant")
    assert table.loc["BiMDSM-0", ["FID", "early stopping", "within"]].tolist() == [35.5, 27.0, "yes*"]
    assert table.loc["BiMDSM-0", "difference"] == pytest.approx(35.5 - 34.55)
    assert "BiMDSM (20) (paper)" not in table.index
    assert table.loc["VAE-EBLVM (paper)", "paper: FID"] == 30.1


def test_bounds_are_those_of_the_selected_checkpoint_of_every_seed() -> None:
    """Seed 1 stops at step 100, where reverse AIS lies above AIS; the other goes on to the last."""
    held = Held()
    for seed, more in enumerate(({}, {"selected/step": 100.0})):
        held.add("DSM", "dsm", seed, curves={
            LL: lambda seed, step: 129.0 + step / 1000, "test/log_likelihood_lower": lambda seed, step: 128.5 + seed,
            "ais/gap": lambda seed, step: step / 1000, "ais/temperatures": lambda seed, step: 2.0 * step,
            "ais/within_tolerance": lambda seed, step: float(seed == 0),
        }, **more)  # fmt: skip
    artefact = built(bounds, held)["bounds-board"]
    columns = ["seed", "iteration", "AIS", "reverse AIS", "gap", "crossed", "temperatures"]
    assert artefact.numbers[columns].to_numpy().tolist() == [
        [0, 1000, 130.0, 128.5, 1.0, "", 2000.0], [1, 100, 129.1, 129.5, 0.1, "yes", 200.0],
    ]  # fmt: skip
    assert "Crossed (1 seed)" in artefact.caption
    assert "1 of them missed the tolerance" in artefact.caption
    assert built(bounds, learning(Held(), BOTH)) == {}


def test_a_tables_text_has_its_formats() -> None:
    table = Table(
        pd.DataFrame({"name": ["a", None], "value": [-1.23456, math.nan], "count": [3, 4]}), {"value": "{:.2f}"}
    )
    assert table.written.to_numpy().tolist() == [["a", "−1.23", "3"], ["", "", "4"]]
