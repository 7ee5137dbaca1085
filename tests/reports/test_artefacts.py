"""Figures and tables show the cells they are given, and say when these are not whole."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from reports import paper, style
from reports.artefact import Artefact, Table
from reports.artefacts import (
    ablations,
    bounds,
    cost,
    failures,
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    ranking,
    table1,
    table2,
)
from tests.reports.held import Held, sweep

LL, FD = "test/log_likelihood", "test/fisher_divergence"


def built(module: Any, held: Held, folder: Path = Path("nowhere"), **where: str) -> dict[str, Artefact]:
    return {artefact.name: artefact for artefact in module.build(sweep(held, folder, **where))}


def learning(held: Held, variants: dict[str, tuple[str, float]], seeds: int = 3, **more: Any) -> Held:
    """Log-likelihoods that rise from 0 to the variant's value + the seed / 100, most of it by step 100."""
    for variant, (method, end) in variants.items():
        for seed in range(seeds):
            held.add(
                variant,
                method,
                seed,
                curves={
                    LL: lambda seed, step, end=end: (
                        {0: 0.0, 100: 0.96, 1000: 1.0}[step] * end + seed / 100 * (step > 0)
                    ),
                    "time/train_seconds": lambda seed, step: step / 50 + seed,
                    "train/objective": lambda seed, step: step + seed,
                },
                **{"time/ms_per_step": 2.0 + seed, "time/compile_seconds": 3.0, "memory/peak_bytes": 5e8, **more},
            )
    return held


BOTH = {"CD-10": ("cd", 0.5), "CD-5": ("cd", 0.4), "BiDSM-5": ("bidsm", 0.3), "Mine": ("mine", 0.2)}


# --- Figure 3 ---------------------------------------------------------------------------------------------------------


def test_every_variant_is_drawn_in_the_panel_of_its_family() -> None:
    artefact = built(figure3, learning(Held(), BOTH))["figure3-board"]
    assert artefact.figure is not None
    shown = {
        axes.get_title(): [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]
        for axes in artefact.figure.axes
        if axes.get_legend()
    }
    assert shown == {
        "Contrastive divergence": ["CD-5", "CD-10"],
        "Bi-level score matching": ["BiDSM-5"],
        "Other": ["Mine"],
    }


def test_what_is_plotted_is_what_the_store_has() -> None:
    """Three seeds faint, and their mean with its band; the CSV has the same numbers."""
    held = learning(Held(), BOTH)
    artefact = built(figure3, held)["figure3-board"]
    assert artefact.figure is not None
    lines = [line for line in artefact.figure.axes[0].lines if line.get_color() == style.colour("cd")]
    faint = [np.asarray(line.get_ydata()) for line in lines if line.get_alpha()]
    seeds = [value for s in (0, 0.01, 0.02) for value in (0.0, 0.384 + s, 0.4 + s, np.nan)][:-1]
    assert any(len(line) == len(seeds) and np.allclose(line, seeds, equal_nan=True) for line in faint)
    (mean,) = [line for line in lines if line.get_label() == "CD-5"]
    assert mean.get_xydata().tolist() == pytest.approx(np.array([[0, 0], [100, 0.394], [1000, 0.41]]))
    numbers = artefact.numbers[artefact.numbers["variant"] == "CD-5"]
    assert numbers["mean"].tolist() == pytest.approx([0, 0.394, 0.41])
    assert numbers["half_width"].tolist()[1:] == pytest.approx([4.302653 * 0.01 / math.sqrt(3)] * 2)
    assert set(artefact.runs) == {row["run"] for row in held.rows}


def test_against_time_each_point_stands_at_its_mean_time() -> None:
    numbers = built(figure3, learning(Held(), {"CD-5": ("cd", 0.4)}))["convergence-board"].numbers
    assert numbers["seconds"].tolist() == [1.0, 3.0, 21.0]


def test_one_measurement_makes_no_curve() -> None:
    held = Held()
    held.add("DSM", "dsm", 0, **{LL: 1.0})
    held.values["grbm-paper-board-DSM-0", LL] = [(1000, 1.0)]
    assert built(figure3, held) == {}


# --- what is missing --------------------------------------------------------------------------------------------------


def incomplete() -> Held:
    held = learning(Held(), BOTH)
    held.add("CD-5", "cd", 3, "failed", error="RuntimeError: no")
    held.add("CD-5", "cd", 4, "planned")
    held.add("BiDSM-5", "bidsm", 3, "diverged", **{LL: math.nan})
    return held


@pytest.mark.parametrize("module", [figure3, figure5, ranking, cost])
def test_an_incomplete_figure_says_so(module: Any) -> None:
    for artefact in built(module, incomplete()).values():
        assert artefact.missing == 2
        if artefact.figure is not None:
            assert artefact.figure.get_suptitle() == "INCOMPLETE: 2 cells are missing"
    for artefact in built(module, learning(Held(), BOTH)).values():
        assert artefact.missing == 0
        assert artefact.figure is None or artefact.figure.get_suptitle() == ""


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


# --- cost -------------------------------------------------------------------------------------------------------------


def test_cost_and_the_time_to_most_of_the_gain() -> None:
    row = built(cost, learning(Held(), {"CD-5": ("cd", 0.4)}))["cost-board"].numbers.iloc[0]
    assert row["ms per iteration and seed"] == 3.0
    assert row["s of training"] == 21.0
    assert (row["iterations to 95%"], row["s to 95%"]) == (100, 3.0)
    assert row["peak memory (GB)"] == 0.5


def test_a_curve_that_ends_below_its_start_has_no_such_time() -> None:
    timed = pd.DataFrame({"step": [0, 1], "value": [1.0, 0.0], "seconds": [0.0, 1.0]})
    assert all(map(math.isnan, cost.reached(timed, high=True)))
    assert cost.reached(timed, high=False) == (1, 1.0)


# --- the paper's tables -----------------------------------------------------------------------------------------------


def frey(values: dict[str, list[tuple[float, float]]]) -> Held:
    held = Held()
    for variant, of_seeds in values.items():
        for seed, (likelihood, divergence) in enumerate(of_seeds):
            held.add(variant, "dsm", seed, suite="freyface", task="freyface",
                     **{f"selected/{LL}": likelihood, LL: 0.0, FD: divergence, "ais/gap": 0.5})  # fmt: skip
    return held


def test_table1_is_beside_the_papers() -> None:
    held = frey({"DSM": [(129.0, -5885.0), (131.0, -5885.2)], "BiDSM-0": [(90.0, -5400.0), (90.2, -5400.0)]})
    table = built(table1, held, suite="freyface")["table1"].numbers.set_index(["measure", "variant"])
    row = table.loc["log-likelihood", "DSM"]
    assert row["ours"] == 130.0
    assert row["± 95%"] == pytest.approx(12.706205)
    assert row["paper"] == paper.TABLE1["DSM"][0]
    assert row["difference"] == pytest.approx(130.0 - 129.23)
    assert row["within"] == "yes"
    assert table.loc[("log-likelihood", "BiDSM-0"), "within"] == "no"
    assert table.loc[("Fisher divergence", "DSM"), "ours"] == pytest.approx(-5885.1)
    assert built(table1, frey({"Mine": [(1, 1)]}), suite="freyface") == {}


@pytest.mark.parametrize(
    ("half_width", "printed", "said"),
    [(2.0, 11.9, "yes"), (2.0, 8.1, "yes"), (2.0, 12.1, "no"), (2.0, 7.9, "no"), (math.nan, 10.0, ""), (2.0, None, "")],
)
def test_within_is_inside_the_interval(half_width: float, printed: float | None, said: str) -> None:
    assert table1.within(10.0, half_width, printed) == said


def test_one_seed_has_no_interval_to_be_within() -> None:
    table = built(table1, frey({"DSM": [(129.23, -5885.09)]}), suite="freyface")["table1"].numbers
    assert table["within"].tolist() == ["", ""]


def test_table2_names_what_only_the_paper_has() -> None:
    held = Held()
    for seed in range(2):
        held.add("BiMDSM-0", "bimdsm", seed, suite="cifar10", task="cifar10", paper_label="BiMDSM (20)",
                 **{"test/fid": 35.0 + seed, "selected/test/fid": 27.0})  # fmt: skip
    table = built(table2, held, suite="cifar10")["table2"].numbers.set_index("variant")
    assert table.loc["BiMDSM-0", ["FID", "early stopping", "within"]].tolist() == [35.5, 27.0, "yes"]
    assert table.loc["BiMDSM-0", "difference"] == pytest.approx(35.5 - 34.55)
    assert "BiMDSM (20) (paper)" not in table.index
    assert table.loc["VAE-EBLVM (paper)", "paper: FID"] == 30.1


def test_bounds_stand_beside_the_likelihood() -> None:
    table = built(bounds, frey({"DSM": [(129.0, -1.0), (131.0, -1.0)]}), suite="freyface")["bounds-freyface"].numbers
    assert table[["AIS (optimistic)", "gap"]].iloc[0].tolist() == [130.0, 0.5]
    assert built(bounds, learning(Held(), BOTH)) == {}


# --- the other figures ------------------------------------------------------------------------------------------------


def biased() -> Held:
    held = Held()
    held.add("BiDSM-5", "bidsm", 0, curves={
        **{f"bias/theorem2_K{k}_N{n}": lambda seed, step, n=n, k=k: 2.0**-n / (1 + k)
           for k in (0, 5) for n in (0, 1, 2)},
        **{f"bias/practical_K0_N{n}": lambda seed, step, n=n: 1.0 + n for n in (0, 1)},
        **{f"bias/practical_floor_K0_N{n}": lambda seed, step: 0.1 for n in (0, 1)},
        "bias/theorem2_distance_K0": lambda seed, step: 1.5,
        "bias/theorem2_kappa_K5": lambda seed, step: 0.5,
        "bias/theorem2_kappa_K5_low": lambda seed, step: 0.4,
        "bias/theorem2_kappa_K5_high": lambda seed, step: 0.6,
    })  # fmt: skip
    return held


def test_figure1_has_a_curve_for_each_k_and_the_rate() -> None:
    found = built(figure1, biased())
    figure = found["figure1-board"].figure
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes][:3] == ["iteration 0", "iteration 100", "iteration 1,000"]
    assert [line.get_xydata().tolist() for line in figure.axes[0].lines] == [
        [[0, 1.0], [1, 0.5], [2, 0.25]],
        [[0, 1 / 6], [1, 1 / 12], [2, 1 / 24]],
    ]  # fmt: skip
    below = [line.get_ydata().tolist() for line in figure.axes[3].lines]  # type: ignore[union-attr]
    assert below == [[1.0, 2.0], [0.1, 0.1]]
    rates = found["figure1-rates-board"].numbers
    assert rates.iloc[0].tolist() == [0, 5, 0.5, 0.4, 0.6]
    distances = found["figure1-distances-board"].numbers
    assert distances[["K", "distance", "paper"]].iloc[0].tolist() == [0, 1.5, 1.38]
    assert built(figure1, learning(Held(), BOTH)) == {}


def test_figure2_shows_the_data_beside_the_models(tmp_path: Path) -> None:
    held, axis = learning(Held(), {"SM": ("sm", 0.3)}), np.linspace(-0.25, 1.25, 151)
    held.arrays["grbm-paper-board-SM-0", "density"] = {"axis": axis, "density": np.full((151, 151), 0.25)}
    artefact = built(figure2, held, tmp_path)["figure2-board"]
    assert artefact.figure is not None
    panels = {axes.get_title(): axes.images[0].get_array() for axes in artefact.figure.axes if axes.images}
    assert set(panels) == {"data", "SM"}
    assert float(panels["data"].sum() * 0.01**2) == pytest.approx(1.0, abs=0.02)
    assert float(panels["SM"].max()) == 0.25
    assert artefact.runs == ["grbm-paper-board-SM-0"]
    row = artefact.numbers.iloc[0]
    assert row["mass on the map"] == pytest.approx(0.25 * 1.51**2)
    assert row["mass on the data's squares"] == pytest.approx(0.25 / 2, abs=0.01)


def test_the_checkerboard_density_lies_on_the_rising_diagonal() -> None:
    density = figure2.checkerboard(np.array([0.25, 0.75]))
    assert density.tolist() == [[2.0, 0.0], [0.0, 2.0]]


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_figure4_shows_samples_in_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    held, samples = learning(Held(), {"DSM": ("dsm", 0.3)}), np.random.default_rng(0).random((40, *shape))
    held.arrays["grbm-paper-board-DSM-0", "samples"] = {"samples": samples}
    artefact = built(figure4, held, tmp_path)["figure4-samples-board"]
    assert artefact.figure is not None
    page = np.asarray(artefact.figure.axes[0].images[0].get_array())
    second = samples[7] if len(shape) == 2 else np.moveaxis(samples[7], 0, -1)
    assert np.allclose(page[5:9, 6:11, :3] if len(shape) == 3 else page[5:9, 6:11], second)


def test_reconstructions_stand_below_their_originals() -> None:
    originals, ours = np.zeros((8, 2, 2)), np.ones((8, 2, 2))
    page = figure4.sheet([originals, ours], strongest=False)
    assert page[0, 0] == 0
    assert page[3, 0] == 1
    assert page[6, 3] == 0  # the seventh and the eighth
    assert math.isnan(page[6, 6])


def test_fields_are_the_strongest() -> None:
    fields = np.arange(50.0)[:, None, None] * np.ones((1, 2, 2))
    assert figure4.sheet([fields], strongest=True)[0, 0] == 49


def test_figure5_is_of_bilevel_methods() -> None:
    artefact = built(figure5, learning(Held(), BOTH))["figure5-board"]
    assert set(artefact.numbers["variant"]) == {"BiDSM-5"}
    assert artefact.numbers["mean"].tolist() == [101.0, 1001.0]  # not at step 0
    assert built(figure5, learning(Held(), {"CD-5": ("cd", 0.4)})) == {}


def test_ablations_average_over_seeds() -> None:
    held = Held()
    for k in (0, 5):
        for n in (0, 10):
            for seed in (0, 1):
                held.add(f"BiDSM-{n} [K={k}]", "bidsm", seed, **{FD: -k - n - seed, "time/ms_per_step": k + 2.0 * n,
                         "param.inner_steps": str(k), "param.unroll_steps": str(n)})  # fmt: skip
    artefact = built(ablations, held)["ablation-kn-bidsm-board"]
    table = artefact.numbers
    assert table[["K", "N", "quality", "ms per iteration and seed"]].to_numpy().tolist() == [
        [0, 0, -0.5, 0], [0, 10, -10.5, 20], [5, 0, -5.5, 5], [5, 10, -15.5, 25],
    ]  # fmt: skip
    assert artefact.figure is not None
    assert artefact.figure.axes[1].lines[1].get_xydata().tolist() == [[0, 5], [10, 25]]


def test_ablations_of_minibatches() -> None:
    held = Held()
    for size in (25, 100):
        held.add("DSM", "dsm", 0, task=f"batch{size}", **{FD: -size, "time/ms_per_step": 1.0,
                 "param.batch_size": str(size), "param.inner_steps": math.nan, "param.unroll_steps": math.nan}
                 )  # fmt: skip
    table = built(ablations, held)["ablation-minibatch"].numbers
    assert table[["minibatch", "variant", "quality"]].to_numpy().tolist() == [[25, "DSM", -25], [100, "DSM", -100]]


# --- one look ---------------------------------------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05) of relative luminances."""

    def luminance(colour: str) -> float:
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_method_has_a_colour_and_a_marker_that_are_seen_on_both_pages() -> None:
    methods = style.methods()
    assert len({style.colour(method) for method in methods}) == len(methods)
    assert len({style.marker(method) for method in methods}) == len(methods)
    for method in [*methods, "mine"]:
        assert contrast(style.colour(method), "#ffffff") >= 3
        assert contrast(style.colour(method), "#14161a") >= 3


def test_a_tables_text_has_its_formats() -> None:
    table = Table(
        pd.DataFrame({"name": ["a", None], "value": [-1.23456, math.nan], "count": [3, 4]}), {"value": "{:.2f}"}
    )
    assert table.written.to_numpy().tolist() == [["a", "−1.23", "3"], ["", "", "4"]]
