"""Tables and comparisons have the numbers of the cells they are given."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from reports import paper
from reports.artefact import Artefact, Table, fixed
from reports.artefacts import bounds, cost, failures, log_z, ranking, summary, table1, table2
from reports.methods import method
from reports.sweep import selected
from tests.reports.stores import BOTH, FD, LL, Held, built, frey, incomplete, learning

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


def test_what_the_rule_takes_and_is_not_a_number_has_no_value() -> None:
    held = Held()
    for seed, value in ((0, -7.0), (1, math.nan)):
        held.add("A", "dsm", seed, **{FD: -5.0, "selected/step": 10.0, f"selected/{FD}": value, "test/late": 1.0})
    held.add("B", "dsm", 0, **{FD: -6.0})
    cells = held.cells("grbm", "paper")
    assert selected(cells, FD).tolist()[::2] == [-7.0, -6.0]
    assert math.isnan(selected(cells, FD)[1])
    assert selected(cells, "test/late").tolist()[:2] == [1.0, 1.0]  # was measured at the end alone


def test_what_has_a_bound_alone_is_said_and_shown_where_others_have_a_value() -> None:
    held, exact, bound = Held(), "test/log_likelihood", "test/log_likelihood_bound"
    for seed in (0, 1):
        held.add("A", "dsm", seed, **{exact: -5.0, bound: -5.5})
        held.add("B", "dsm", seed, **{exact: -6.0 - seed})
        held.add("Bounded", "dsm", seed, **{bound: -3.0 - seed})
        held.add("Unknown", "dsm", seed, **{"test/mmd": 0.1})
    said = "Of Bounded bounds or estimates alone are known, which the ranking gives. Of Unknown no value is known."
    for module, name in ((ranking, "ranking"), (ranking, "comparisons"), (summary, "summary")):
        assert said in built(module, held)[f"{name}-board"].caption
    table = built(ranking, held)["ranking-board"].numbers.set_index("variant")
    assert table["mean"].dropna().to_dict() == {"A": -5.0, "B": -6.5}
    assert table["bound or estimate"].dropna().to_dict() == {"Bounded": -3.5}
    without = built(ranking, learning(Held(), BOTH))["ranking-board"]
    assert "bound or estimate" not in without.numbers
    assert "known" not in without.caption


def against(values: dict[str, list[float]], high: bool = True) -> pd.DataFrame:
    """Comparisons of variants by their values at seeds 0, 1, ...; NaN where there is none."""
    cells = [{"seed": seed, "variant": name, "value": x} for name, row in values.items() for seed, x in enumerate(row)]
    return ranking.against_best(pd.DataFrame(cells).dropna(), high)


def test_comparisons_are_paired_by_seed() -> None:
    """B is about 1 below A in every common seed, though seeds are ten apart."""
    found = against({"A": [0, 10, 20, 30], "B": [-1, 9.1, 18.9, 29, 0][:4]})
    assert found.attrs == {"best": "A", "pairs": 1}
    row = found.iloc[0]
    half_width = 3.182446 * np.std([-1, -0.9, -1.1, -1], ddof=1) / 2
    assert (row["variant"], row["seeds"], row["conclusion"]) == ("B", 4, "worse")
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((-1, -1 - half_width, -1 + half_width))
    assert row["pairs won"] == 6 / 16
    assert "(Student's t). Pairs won" in ranking.explained(found)  # two-sided: of two it does not matter who is better
    assert against({"A": [1, 2, 3]}).empty


def test_a_seed_that_one_lacks_is_compared_with_none() -> None:
    """C has one seed, the best of all: it is no reference. D lacks the seeds of A, and B one of them."""
    found = against({"A": [5, 6, 7, math.nan, math.nan], "B": [4, math.nan, 6.1, math.nan, math.nan],
                     "C": [9] + 4 * [math.nan], "D": 3 * [math.nan] + [1, 2]}).set_index("variant")  # fmt: skip
    assert found.attrs == {"best": "A", "pairs": 3}
    assert found["seeds"].to_dict() == {"C": 1, "B": 2, "D": 0}
    assert found["conclusion"].to_dict() == {
        "C": "no two seeds in common", "B": "no conclusion", "D": "no two seeds in common"
    }  # fmt: skip
    assert found.loc["B", "difference"] == pytest.approx(-0.95)
    assert found.loc[["C", "D"], ["difference", "low", "high", "p"]].isna().all(axis=None)
    assert ranking.shown(found.reset_index()).written["p"].eq("").tolist() == [True, False, True]
    found = found.reset_index()
    found.attrs = {"best": "A", "pairs": 3}
    assert "Where p is blank" in ranking.explained(found)
    assert against({"A": [5, math.nan], "B": [math.nan, 4]}).empty


def test_the_lowest_is_the_reference_where_low_is_good() -> None:
    found = against({"A": [5.0, 6, 7], "B": [4.0, 5.1, 5.9]}, high=False)
    assert found.attrs["best"] == "B"
    assert found["conclusion"].tolist() == ["worse"]
    assert found["pairs won"].tolist() == [pytest.approx(2 / 9)]


def comparisons(seeds: int) -> tuple[Artefact, Figure]:
    artefact = built(ranking, learning(Held(), BOTH, seeds=seeds))["comparisons-board"]
    assert artefact.figure is not None
    return artefact, artefact.figure


def test_no_row_of_the_comparisons_is_cut() -> None:
    (axes,) = comparisons(3)[1].axes
    low, high = sorted(axes.get_ylim())
    assert low < -0.5
    assert high > 2.5


def test_where_no_conclusion_is_possible_words_say_so() -> None:
    """Three of these differ by less than their seeds, the fourth by far more."""
    held = Held()
    values = {"A": [0.50, 0.52, 0.48], "B": [0.49, 0.47, 0.52], "C": [0.46, 0.53, 0.48], "SM": [-90.0, -90.1, -89.9]}
    for variant, row in values.items():
        for seed, value in enumerate(row):
            held.add(variant, "cd" if variant != "SM" else "sm", seed, **{LL: value})
    artefact = built(ranking, held)["comparisons-board"]
    assert artefact.table is not None
    written = artefact.table.written.set_index("variant")
    assert written["conclusion"].to_dict() == {"B": "no conclusion", "C": "no conclusion", "SM": "worse"}
    assert written.loc[["B", "C"], "p"].str.fullmatch(r"1\.0{3,}").all()
    assert "p is blank" not in artefact.caption
    assert "one among 6 pairs of variants" in artefact.caption
    assert "No conclusion is possible about 2 variants (hollow)" in artefact.caption
    assert artefact.figure is not None
    points = [line for line in artefact.figure.axes[0].lines if len(np.asarray(line.get_xdata())) == 1]
    assert [line.get_markerfacecolor() == "none" for line in points] == [True, True, False]


def test_no_conclusion_at_all_is_one_sentence() -> None:
    held = learning(Held(), BOTH, seeds=2)
    held.rows[0][LL] += 5.0
    caption = built(ranking, held)["comparisons-board"].caption
    assert "No conclusion: 2 seeds do not tell any of these variants from CD-10." in caption


def test_the_rule_and_the_seeds_that_diverged_are_said() -> None:
    held = learning(Held(), BOTH, select="last_tenth val/log_likelihood")
    once = built(ranking, held)
    for run in {run for run, _ in held.values}:
        held.values[run, LL].append((950, 0.0))
    found = built(ranking, held)
    for name in ("ranking-board", "comparisons-board"):
        assert "the mean of the evaluations in the last tenth of the iterations" in found[name].caption
        assert "its last measurement, the only one in the last tenth" in once[name].caption
    assert "diverged" not in found["comparisons-board"].caption
    assert "A seed that diverged is compared with none" in built(ranking, incomplete())["comparisons-board"].caption


def test_an_axis_that_is_logarithmic_in_part_is_said() -> None:
    held = learning(Held(), {"CD-1": ("cd", 0.5), "CD-5": ("cd", 0.4), "CD-10": ("cd", 0.39), "SM": ("sm", -90.0)})
    artefact = built(ranking, held)["comparisons-board"]
    assert "linear up to ±0.110 and logarithmic beyond" in artefact.caption
    assert "logarithmic" not in comparisons(3)[0].caption


def test_numbers_along_a_logarithmic_axis_do_not_touch() -> None:
    for furthest in (40.0, 6e2, 6e3, 6e5):
        compared = pd.DataFrame({"variant": ["CD-1", "SM"], "difference": [-0.1, -0.2], "low": [-0.9, -furthest],
                                 "high": [0.8, furthest], "conclusion": "no conclusion"})  # fmt: skip
        compared.attrs["best"] = "CD-5"
        figure, near = ranking.draw(compared, {"CD-1": method("cd"), "SM": method("sm"), "CD-5": method("cd")}, LL)
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
        assert near > 0
        assert len(boxes) >= 5
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_a_small_bound_keeps_its_digits() -> None:
    assert fixed([-0.0004, -65.0], 1, least=3, sign="+").format(-0.0004) == "-0.0004"
    assert fixed([1600.3, 40.0], 3).format(1600.3) == "1,600.3"
    assert [fixed([0.1, 0.0663], 3).format(value) for value in (0.1, 0.0663)] == ["0.1000", "0.0663"]
    assert fixed([math.nan, 0.0], least=3) == "{:,.3f}"
    assert [fixed([3.7e8, 0.0021], 3).format(value) for value in (371_898_681.0478, 0.0021)] == ["3.72e+08", "0.0021"]
    assert fixed([3.7e8, 1e5], 3).format(371_898_681.05) == "371,898,681"


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


def test_table2_says_what_has_not_been_run() -> None:
    held = Held()
    for seed in range(2):
        held.add("BiMDSM-0", "bimdsm", seed, suite="cifar10", task="cifar10", paper_label="BiMDSM (20)",
                 **{"test/fid": 35.0 + seed, "selected/test/fid": 27.0})  # fmt: skip
    artefact = built(table2, held, suite="cifar10")["table2"]
    table = artefact.numbers.set_index("variant")
    assert table.loc["BiMDSM-0", ["seeds", "FID", "early stopping", "within"]].tolist() == ["2", 35.5, 27.0, "yes*"]
    assert table.loc["BiMDSM-0", "difference"] == pytest.approx(35.5 - 34.55)
    assert "BiMDSM (20)" not in table.index
    assert table.loc["VAE-EBLVM", ["seeds", "paper: FID"]].tolist() == ["not run", 30.1]
    assert set(table.index[table["seeds"] == "not run"]) == set(paper.TABLE2) - {"BiMDSM (20)"}
    assert "ResNet-56" not in artefact.caption


def test_table2_without_inception_has_no_fid() -> None:
    held = Held()
    held.add("CoopNets", "coopnets", 0, suite="cifar10", task="cifar10", paper_label="CoopNets",
             **{"test/frechet_resnet56": 60.0})  # fmt: skip
    artefact = built(table2, held, suite="cifar10")["table2"]
    assert artefact.table is not None
    shown = artefact.table.frame.set_index("variant").loc["CoopNets"]
    assert shown[["seeds", "paper: FID", "ResNet-56 distance"]].tolist() == ["1", 33.61, 60.0]
    assert "FID" not in artefact.table.frame
    assert "No FID was computed" in artefact.caption
    assert built(table2, learning(Held(), BOTH)) == {}


def estimated(**more: float) -> Held:
    """Seed 1 stops at step 100, where reverse AIS contradicts AIS; the other goes on to the last."""
    held = Held()
    for seed, where in enumerate(({}, {"selected/step": 100.0})):
        held.add("DSM", "dsm", seed, curves={
            LL: lambda seed, step: 129.0 + step / 1000,
            f"{LL}_lower": lambda seed, step: 128.5 + step / 1000 - seed,
            f"{LL}_upper": lambda seed, step: 129.5 + step / 1000,
            "ais/gap": lambda seed, step: step / 1000, "ais/temperatures": lambda seed, step: 2.0 * step,
            "ais/within_tolerance": lambda seed, step: float(seed == 0),
            "ais/contradictory": lambda seed, step: float(seed == 1),
            **{name: lambda seed, step, value=value: value for name, value in more.items()},
        }, **where)  # fmt: skip
    return held


def test_bounds_are_those_of_the_selected_checkpoint_of_every_seed() -> None:
    artefact = built(bounds, estimated(**{"ais/level": 0.95}))["bounds-board"]
    columns = ["seed", "iteration", "AIS", "low", "high", "gap", "contradictory", "temperatures"]
    assert artefact.numbers[columns].to_numpy().tolist() == [
        [0, 1000, 130.0, 129.5, 130.5, 1.0, "", 2000.0],
        [1, 100, 129.1, pytest.approx(127.6), 129.6, 0.1, "yes", 200.0],
    ]
    assert "Contradictory (1 seed)" in artefact.caption
    assert "1 of them missed the tolerance" in artefact.caption
    assert built(bounds, learning(Held(), BOTH)) == {}


def test_bounds_state_their_level_and_those_without_one_are_no_interval() -> None:
    stated = built(bounds, estimated(**{"ais/level": 0.95}))["bounds-board"].caption
    assert "at a level of 95%" in stated
    assert "no interval" not in stated
    old = built(bounds, estimated())["bounds-board"].caption
    assert "no interval" in old
    assert "level of" not in old


def test_bounds_of_models_without_a_free_energy_are_listed_with_how_log_z_was_had() -> None:
    held, name = Held(), "test/log_likelihood_bound"
    for variant, gap in (("DBM", 0.25), ("PCD-1", 0.0)):
        held.add(variant, "dbm", 0, curves={
            name: lambda seed, step: -20.0, f"{name}_lower": lambda seed, step, gap=gap: -20.0 - gap,
            f"{name}_upper": lambda seed, step, gap=gap: -20.0 + gap, "bound/log_z": lambda seed, step: 45.0,
            "bound/standard_error": lambda seed, step, gap=gap: gap / 5, "bound/gap": lambda seed, step, gap=gap: gap,
            "bound/contradictory": lambda seed, step: 0.0,
        })  # fmt: skip
    artefact = built(bounds, held)["likelihood-bounds-board"]
    columns = ["variant", "bound", "low", "high", "log Z", "± s.e.", "gap"]
    assert artefact.table is not None
    assert sorted(artefact.table.frame[columns].to_numpy().tolist()) == [
        ["DBM", -20.0, -20.25, -19.75, 45.0, 0.05, 0.25],
        ["PCD-1", -20.0, -20.0, -20.0, 45.0, 0.0, 0.0],
    ]
    assert "exact where the gap is 0 and else AIS's" in artefact.caption
    assert "contradictory" not in artefact.table.frame
    exact = Held()
    exact.add("PCD-1", "pcd", 0, curves={name: lambda seed, step: -20.0, "bound/gap": lambda seed, step: 0.0})
    artefact = built(bounds, exact)["likelihood-bounds-board"]
    assert artefact.table is not None
    assert "by enumeration" in artefact.caption
    assert not {"low", "high", "gap"} & set(artefact.table.frame)


def test_learnt_bounds_of_log_z_are_shown_against_the_number_of_visible_units() -> None:
    held = Held()
    for task, units in (("patch_4", 4), ("patch_9", 9)):
        for seed in range(3):
            gap = units / 10 + 0.1 * (seed - 1)
            curves = {"log_z/exact": lambda seed, step: 5.0, "log_z/upper": lambda seed, step, gap=gap: 5.0 + gap,
                      "log_z/gap": lambda seed, step, gap=gap: gap,
                      "log_z/effective_samples": lambda seed, step: 0.5}  # fmt: skip
            held.add("NVIL", "nvil", seed, task=task, curves=curves, **{"param.model_visible": str(units)})
    for task, of_images in (("a_shape", "28 x 28"), ("none", "0"), ("too_many", "1e400")):
        held.add("NVIL", "nvil", 0, task=task, curves=curves, **{"param.model_visible": of_images})
    artefact = built(log_z, held)["log-z-bounds"]
    known = artefact.numbers[artefact.numbers["visible units"] > 0]
    shown = known[["task", "visible units", "seeds", "log Z", "kind", "gap"]].to_numpy().tolist()
    assert shown == [
        ["patch_4", 4, 3, 5.0, "upper", pytest.approx(0.4)],
        ["patch_9", 9, 3, 5.0, "upper", pytest.approx(0.9)],
    ]  # of others there is a row, and no place along the axis
    half = stats.t.ppf(0.975, 2) * 0.1 / 3**0.5
    assert artefact.numbers["± 95%"].dropna().to_list() == pytest.approx([half, half])
    assert artefact.figure is not None
    (axes,) = artefact.figure.axes
    (curve,) = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() != "None"]
    np.testing.assert_allclose(curve.get_xydata(), [[4, 0.4], [9, 0.9]])
    assert built(log_z, learning(Held(), BOTH)) == {}


def test_a_measure_in_small_units_keeps_its_digits_in_the_report() -> None:
    held = Held()
    for variant, value in (("A", -2.0e-7), ("B", -1.0e-7)):
        for seed in range(3):
            times = {"time/ms_per_step": 1.0, "time/train_seconds": 1.0}
            held.add(variant, "dsm", seed, **{FD: value + seed * 1e-9, **times})
    for module, name in ((ranking, "ranking-board"), (cost, "cost-board")):
        written = built(module, held)[name].table.written  # type: ignore[union-attr]
        column = "mean" if module is ranking else "quality"
        assert written[[column, "± 95%"]].to_numpy().tolist() == [["−1.990e−07", "2.5e−09"], ["−9.90e−08", "2.5e−09"]]


def test_a_tables_text_has_its_formats() -> None:
    table = Table(
        pd.DataFrame({"name": ["a", None], "value": [-1.23456, math.nan], "count": [3, 4]}), {"value": "{:.2f}"}
    )
    assert table.written.to_numpy().tolist() == [["a", "−1.23", "3"], ["", "", "4"]]
