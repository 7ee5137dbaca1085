"""Figures and tables show the cells they are given, and say when these are not whole."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer

from reports import document, style
from reports.artefacts import (
    ablations,
    codes,
    cost,
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    marginals,
    ranking,
    toy2d,
)
from tests.reports.stores import BOTH, FD, Held, biased, built, incomplete, learning

# --- what is missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [figure3, figure5, ranking, cost])
def test_an_incomplete_figure_says_so(module: Any) -> None:
    for artefact in built(module, incomplete()).values():
        assert artefact.missing == 2
        if artefact.figure is not None:
            assert artefact.figure.get_suptitle() == "INCOMPLETE: 2 cells are missing"
    for artefact in built(module, learning(Held(), BOTH)).values():
        assert artefact.missing == 0
        assert artefact.figure is None or artefact.figure.get_suptitle() == ""


# --- the other figures ------------------------------------------------------------------------------------------------


def test_figure1_has_a_curve_for_each_k_and_the_rate() -> None:
    found = built(figure1, biased())
    figure = found["figure1-board"].figure
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes][:3] == ["iteration 0", "iteration 100", "iteration 1,000"]
    n, bias = [0, 1, 10, 20, 40], [4.0, 4 * 0.99, 0.99**10, 0.99**20, 0.99**40]
    lines = [np.asarray(line.get_xydata()) for line in figure.axes[0].lines]
    assert np.allclose(lines[0], np.transpose([n, bias]))
    assert np.allclose(lines[1], np.transpose([n, np.divide(bias, 6)]))
    assert np.allclose(lines[2][:, 1], 7.0)  # the true gradient
    assert np.allclose(lines[3], [[0, 1.0], [40, 0.99**40]])  # what is fitted to N >= 10
    below = [line.get_ydata().tolist() for line in figure.axes[3].lines]  # type: ignore[union-attr]
    assert below == [[1.0, 2.0], [0.1, 0.1]]
    rate = found["figure1-rates-board"].numbers.iloc[0]
    assert (rate["factor, N ≥ 10"], rate["R², N ≥ 10"]) == pytest.approx((0.99, 1.0))
    points = np.log(bias[1:])
    assert rate["R², N ≥ 1"] == pytest.approx(np.corrcoef(n[1:], points)[0, 1] ** 2)
    assert rate["factor, N ≥ 1"] == pytest.approx(np.exp(np.polyfit(n[1:], points, 1)[0]))
    distances = found["figure1-distances-board"].numbers
    assert distances[["K", "distance", "paper"]].iloc[0].tolist() == [0, 1.5, 1.38]
    assert built(figure1, learning(Held(), BOTH)) == {}


def test_the_same_k_looks_the_same_in_every_panel() -> None:
    figure = built(figure1, biased())["figure1-board"].figure
    assert figure is not None
    looks = {(line.get_label(), line.get_color(), line.get_marker()) for axes in figure.axes for line in axes.lines
             if str(line.get_label()).startswith("K")}  # fmt: skip
    assert len(looks) == 2
    above, below = (figure.axes[place].yaxis.get_major_formatter()(2.0) for place in (0, 3))
    assert (above, below) == ("2", "2")


def planes(held: Held, **more: np.ndarray) -> Held:
    """Densities of 0.25 and 0.1 on a rectangle of 1.5 x 3."""
    for variant, density in (("SM", 0.25), ("MDSM", 0.1)):
        held.arrays[f"grbm-paper-board-{variant}-0", "density"] = {
            "density": np.full((301, 151), density), "step": np.array(1000), **more}  # fmt: skip
    return held


def shown(artefact: Any) -> dict[str, Any]:
    return {axes.get_title(): axes for axes in artefact.figure.axes if axes.get_title()}


def test_figure2_shows_the_data_s_own_points_beside_the_models(tmp_path: Path) -> None:
    held = learning(Held(), {"SM": ("sm", 0.3), "MDSM": ("mdsm", 0.1)})
    points = np.random.default_rng(0).random((2000, 2)) * [0.5, 1] + [10, -20]
    first, second = np.linspace(9.5, 11, 151), np.linspace(-21, -18, 301)
    artefact = built(figure2, planes(held, first=first, second=second, points=points), tmp_path)["figure2-board"]
    panels = shown(artefact)
    assert list(panels) == ["data", "MDSM", "SM"]
    assert np.array_equal(panels["data"].collections[0].get_offsets(), points)
    assert all((axes.get_xlim(), axes.get_ylim()) == ((9.5, 11), (-21, -18)) for axes in panels.values())
    (image,) = panels["SM"].images
    assert float(image.get_array().max()) == 0.25
    assert image.get_clim() == pytest.approx((0, 4), rel=0.2)  # twice the data's density
    said = {name: [text.get_text() for text in axes.texts] for name, axes in panels.items()}
    assert said == {"data": [], "SM": [], "MDSM": ["45% of the mass\nis shown"]}
    assert "v₁ from 9.5 to 11 and v₂ from −21 to −18" in artefact.caption
    assert "2,000 points of the training data" in artefact.caption
    assert "Seed 0 of each variant, at iteration 1,000" in artefact.caption
    assert np.array_equal(artefact.arrays["points"], points)
    assert artefact.runs == ["grbm-paper-board-MDSM-0", "grbm-paper-board-SM-0"]
    row = artefact.numbers.set_index("variant").loc["SM"]
    assert row["mass on the map"] == pytest.approx(0.25 * 151 * 301 * 1e-4)


def test_points_in_the_plane_beside_the_truth_and_long_chains(tmp_path: Path) -> None:
    measured: Any = {"langevin/acceptance": 0.57}
    held = learning(Held(), {f"SM {i}": ("sm", 0.3) for i in range(12)}, **measured)
    axis = np.linspace(-2, 2, 41)
    inside, outside = np.zeros((100, 2)), np.full((50, 2), 9.0)
    for i in range(12):
        held.arrays[f"grbm-paper-board-SM {i}-0", "toy2d"] = {
            "first": axis, "second": axis, "points": inside, "own": inside, "step": np.array(1000),
            "long": np.concatenate([inside[:50], outside]), "truth": np.full((41, 41), 0.06),
            "density": np.full((41, 41), 0.03)}  # fmt: skip
    found = built(toy2d, held, tmp_path)
    assert list(found) == ["toy2d-board", "toy2d-board-2", "two-samples-board"]
    figure = found["toy2d-board"].figure
    assert figure is not None
    panels = [axes.get_title() for axes in figure.axes if axes.axison]
    assert panels[:5] == ["true density", "data", "SM 0", "samples", "long chains"]
    assert len(panels) == 2 + 3 * 11
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert said == ["50% beyond"] * 22
    assert found["two-samples-board"].numbers["accepted"].tolist() == pytest.approx([0.57] * 12)
    assert figure.axes[0].images[0].get_clim() == (0, 0.12)
    numbers = found["toy2d-board"].numbers.set_index("variant").loc["SM 3"]
    assert numbers["mass on the map"] == pytest.approx(0.03 * 41**2 * 0.1**2)
    assert list(numbers[["samples beyond it", "long chains beyond it"]]) == [0, 0.5]
    caption = found["toy2d-board"].caption
    assert "100 samples as the method draws them, and the ends of 100 chains that go on from there by many" in caption
    assert "v₁ from −2 to 2, v₂ from −2 to 2, densities from 0 to 0.12" in caption
    for i, how in enumerate([{"steps": "500 steps"}, {"instead": "draws of the trained prior, decoded"}]):
        held.arrays[f"grbm-paper-board-SM {i}-0", "toy2d"] |= {name: np.array(text) for name, text in how.items()}
    caption = built(toy2d, held, tmp_path)["toy2d-board"].caption
    assert "by 500 steps of the Metropolis-adjusted Langevin algorithm" in caption
    assert "trained energy (of SM 1: draws of the trained prior, decoded)" in caption
    assert list(found["toy2d-board-2"].numbers["variant"]) == ["SM 11"]


def test_results_without_pictures_have_the_table_of_points_alone(tmp_path: Path) -> None:
    measured: Any = {"test/c2st": 0.52, "test/long_mmd": 0.03}
    found = built(toy2d, learning(Held(), {"SM": ("sm", 0.3)}, **measured), tmp_path)
    assert list(found) == ["two-samples-board"]
    assert found["two-samples-board"].numbers["MMD², long"].tolist() == pytest.approx([0.03])
    assert not built(toy2d, learning(Held(), {"SM": ("sm", 0.3)}), tmp_path)


def test_long_names_stay_within_their_panels_of_points(tmp_path: Path) -> None:
    held = learning(Held(), {"Generative ConvNet-10 [steps=50]": ("generative_convnet", 0.3)})
    axis, points = np.linspace(-2, 2, 41), np.zeros((10, 2))
    held.arrays["grbm-paper-board-Generative ConvNet-10 [steps=50]-0", "toy2d"] = {
        "first": axis, "second": axis, "points": points, "own": points, "long": points, "step": np.array(1000),
        "density": np.full((41, 41), 0.03)}  # fmt: skip
    figure = built(toy2d, held, tmp_path)["toy2d-board"].figure
    assert figure is not None
    figure.draw_without_rendering()
    named = next(axes for axes in figure.axes if axes.get_title().startswith("Generative"))
    title, panel = named.title.get_window_extent(), named.get_window_extent()
    assert panel.x0 <= title.x0
    assert title.x1 <= panel.x1


def test_densities_of_older_runs_are_shown_without_inventing_data(tmp_path: Path) -> None:
    held, axis = learning(Held(), {"SM": ("sm", 0.3)}), np.linspace(-0.25, 1.25, 151)
    held.arrays["grbm-paper-board-SM-0", "density"] = {
        "axis": axis, "density": np.full((151, 151), 0.4), "step": np.array(1000)}  # fmt: skip
    artefact = built(figure2, held, tmp_path)["figure2-board"]
    assert list(shown(artefact)) == ["SM"]
    assert "kept no points of the data" in artefact.caption


def test_figure2_of_one_coordinate_is_drawn_over_the_histogram(tmp_path: Path) -> None:
    held, first = learning(Held(), {"SM": ("sm", 0.3)}), np.linspace(-4, 4, 401)
    points = np.random.default_rng(0).normal(size=(2000, 1))
    density = np.exp(-(first**2) / 2) / math.sqrt(2 * math.pi)
    held.arrays["grbm-paper-board-SM-0", "density"] = {
        "first": first, "density": density, "points": points, "step": np.array(1000)}  # fmt: skip
    artefact = built(figure2, held, tmp_path)["figure2-board"]
    axes = shown(artefact)["SM"]
    assert np.array_equal(axes.lines[0].get_xydata(), np.transpose([first, density]))
    areas = [patch.get_width() * patch.get_height() for patch in axes.patches]
    assert sum(areas) == pytest.approx(1)  # a density, as the line
    assert artefact.numbers["mass on the map"].tolist() == pytest.approx([1.0], abs=1e-3)


def test_samples_of_many_coordinates_stand_beside_the_data(tmp_path: Path) -> None:
    held, draws = learning(Held(), {f"SM-{i}": ("sm", 0.3) for i in range(8)}), np.random.default_rng(0)
    points, samples = draws.normal(size=(400, 5)), draws.normal(size=(500, 5))
    samples[:250, 1] += 100
    for i in range(8):
        held.arrays[f"grbm-paper-board-SM-{i}-0", "marginals"] = {
            "coordinates": np.array([7, 2, 0, 4, 9]), "points": points, "samples": samples, "step": np.array(1000)
        }  # fmt: skip
    held.arrays["grbm-paper-board-SM-7-0", "marginals"]["how"] = np.array("independent draws")
    found = built(marginals, held, tmp_path)
    assert list(found) == ["marginals-board", "marginals-board-2"]
    assert [len(artefact.runs) for artefact in found.values()] == [6, 2]
    figure = found["marginals-board-2"].figure
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes[:6]] == [
        "v₈",
        "v₃",
        "v₁",
        "v₃ against v₈",
        "v₁ against v₈",
        "v₁ against v₃",
    ]
    data, model = figure.axes[3].collections
    assert np.array_equal(data.get_offsets(), points[:, :2])
    assert np.array_equal(model.get_offsets(), samples[:, :2])
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes[3:6]]
    assert said == [["50% outside"], [], ["50% outside"]]
    assert "500 samples of each model (coloured; drawn in a way that was not" in found["marginals-board"].caption
    assert "(coloured; drawn in a way that was not recorded or independent" in found["marginals-board-2"].caption


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_figure4_shows_samples_in_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    held, samples = learning(Held(), {"DSM": ("dsm", 0.3)}), np.random.default_rng(0).random((40, *shape))
    held.arrays["grbm-paper-board-DSM-0", "samples"] = {"samples": samples, "step": np.array(1000)}
    artefact = built(figure4, held, tmp_path)["figure4-samples-board"]
    assert artefact.figure is not None
    page = np.asarray(artefact.figure.axes[0].images[0].get_array())
    second = samples[7] if len(shape) == 2 else np.moveaxis(samples[7], 0, -1)
    assert np.allclose(page[5:9, 6:11, :3] if len(shape) == 3 else page[5:9, 6:11], second)


def test_five_sheets_stand_in_a_row_and_one_is_not_wider() -> None:
    page = np.ones((6, 6))
    five = figure4.draw({str(number): page for number in range(5)})
    assert len({round(axes.get_subplotspec().rowspan.start) for axes in five.axes}) == 1  # type: ignore[union-attr]
    assert figure4.draw({"one": page}).get_figwidth() < style.TEXT_WIDTH / 2


def test_the_numbers_of_originals_and_reconstructions_are_apart(tmp_path: Path) -> None:
    held = learning(Held(), {"DSM": ("dsm", 0.3)})
    held.arrays["grbm-paper-board-DSM-0", "reconstructions"] = {
        "originals": np.zeros((8, 2, 2)), "reconstructions": np.ones((8, 2, 2)), "step": np.array(5)}  # fmt: skip
    artefact = built(figure4, held, tmp_path)["figure4-reconstructions-board"]
    assert artefact.numbers[["array", "mean"]].to_numpy().tolist() == [["originals", 0.0], ["reconstructions", 1.0]]
    assert set(artefact.arrays) == {"DSM originals", "DSM reconstructions"}


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


def held_codes(held: Held, variant: str, **arrays: np.ndarray) -> None:
    held.arrays[f"grbm-paper-board-{variant}-0", "codes"] = {"step": np.array(5), **arrays}


def test_codes_of_images_are_reconstructions_below_originals_and_a_row_for_each_path(tmp_path: Path) -> None:
    held, draws = Held(), np.random.default_rng(0)
    for seed, error in ((0, 0.1), (1, 0.3)):
        measured = {"codes/reconstruction_error": error, "codes/error_of_mean": 2.0}
        held.add("CoopNets-15", "coopnets", seed, **measured)  # type: ignore[arg-type]
    held.add("CD-1", "cd", 0)
    originals, paths = draws.random((10, 3, 4)), draws.random((3, 8, 3, 4))
    held_codes(held, "CoopNets-15", originals=originals, reconstructions=originals / 2, paths=paths,
               sought=np.array("the best of 3 times 20 steps"))  # fmt: skip
    found = built(codes, held, tmp_path)
    assert list(found) == ["codes-reconstructions-board", "codes-paths-board", "reconstruction-board"]
    over, along = (
        np.asarray(found[f"codes-{name}-board"].figure.axes[0].images[0].get_array())  # type: ignore[union-attr]
        for name in ("reconstructions", "paths")
    )
    assert np.allclose(over[4:7, 5:9], originals[1] / 2)
    assert along.shape == (3 * 4, 8 * 5)
    assert np.allclose(along[8:11, 35:39], paths[2, 7])
    assert found["codes-paths-board"].numbers["error"].tolist() == pytest.approx([((originals / 2) ** 2).mean()])
    (row,) = found["reconstruction-board"].numbers.to_dict("records")
    assert row == pytest.approx({"variant": "CoopNets-15", "error": 0.2, "error of the mean": 2.0})
    assert "Seed 0 of each variant, at iteration 5" in found["codes-paths-board"].caption
    assert all("z sought by the best of 3 times 20 steps of gradient" in one.caption or name == "codes-paths-board"
               for name, one in found.items())  # fmt: skip
    assert built(codes, learning(Held(), BOTH)) == {}


def test_codes_of_points_are_curves_on_the_range_of_the_data(tmp_path: Path) -> None:
    held, t = Held(), np.linspace(0, np.pi, 100)
    for variant in ("Short run-9", "CoopNets-15"):
        held.add(variant, "coopnets", 0)
        half = np.stack([np.cos(t), np.sin(t)], 1)[None]
        held_codes(held, variant, originals=half[0, :7], reconstructions=half[0, :7] + 1, paths=half,
                   points=np.array([[-2.0, -3.0], [2.0, 3.0]]))  # fmt: skip
    artefact = built(codes, held, tmp_path)["codes-board"]
    assert artefact.figure is not None
    panels = [axes for axes in artefact.figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["CoopNets-15", "Short run-9"]
    assert panels[0].get_xlim() == pytest.approx((-2.4, 2.4))
    lines = [one for one in panels[0].collections if isinstance(one, LineCollection)]
    assert [len(one.get_segments()) for one in lines] == [7, 1]
    row = artefact.numbers.iloc[0]
    assert row["length of paths by that of chords"] == pytest.approx(np.pi / 2, rel=1e-3)
    assert row["error"] == pytest.approx(1)


def test_figure5_is_of_bilevel_methods() -> None:
    artefact = built(figure5, learning(Held(), BOTH))["figure5-board"]
    assert set(artefact.numbers["variant"]) == {"BiDSM-5"}
    assert artefact.numbers["mean"].tolist() == [101.0, 1001.0]  # not at step 0
    assert built(figure5, learning(Held(), {"CD-5": ("cd", 0.4)})) == {}


@pytest.mark.parametrize(
    "metric", ["train/lower_objective", "val/lower_objective", "val/posterior_fisher_divergence",
               "test/posterior_fisher_divergence"]
)  # fmt: skip
def test_figure5_says_which_levels_it_has(metric: str) -> None:
    held = learning(Held(), BOTH)
    assert built(figure5, held)["figure5-board"].title == "Learning curves of the higher level (board)"
    held.values["grbm-paper-board-BiDSM-5-0", metric] = [(0, 9.0), (100, 5.0), (1000, 1.0)]
    held.rows[6][metric] = 1.0
    artefact = built(figure5, held)["figure5-board"]
    assert artefact.title == "Learning curves of both levels (board)"
    assert "was not recorded" not in artefact.caption
    assert (artefact.numbers["metric"] == metric).sum() == 2


def test_figure5_leaves_out_what_was_measured_once() -> None:
    held = learning(Held(), BOTH)
    held.values["grbm-paper-board-BiDSM-5-0", "val/objective"] = [(1000, 1.0)]
    held.rows[6]["val/objective"] = 1.0
    figure = built(figure5, held)["figure5-board"].figure
    assert figure is not None
    assert [" ".join(axes.get_ylabel().split()) for axes in figure.axes] == ["higher level: training objective"]


def test_figure5_says_where_it_cuts_first_values() -> None:
    def objective(first: float) -> str:
        held = Held()
        held.add("BiDSM-5", "bidsm", 0, **{"train/objective": 1.0})
        later = [(step, 1.0 + step % 2) for step in range(2, 102)]
        held.values["grbm-paper-board-BiDSM-5-0", "train/objective"] = [(1, first), *later]
        return built(figure5, held)["figure5-board"].caption

    assert "lie outside the panels" in objective(1e6)
    assert "lie outside the panels" not in objective(2.0)


def test_figure5_shows_where_curves_end_or_says_it() -> None:
    """Of 30 variants the lowest ends 0.15 below the 2% quantile's margin; one that runs away is named instead."""

    def drawn(last: float) -> tuple[tuple[float, float], str]:
        held = Held()
        for number in range(30):
            held.add(f"BiDSM-{number}", "bidsm", 0, **{"train/objective": 1.0})
            curve = [(step, 1.0 - step / 100) for step in range(1, 51)]
            curve[-1] = (50, last if number == 7 else 0.5)
            held.values[f"grbm-paper-board-BiDSM-{number}-0", "train/objective"] = curve
        artefact = built(figure5, held)["figure5-board"]
        assert artefact.figure is not None
        return artefact.figure.axes[0].get_ylim(), artefact.caption

    (low, _), caption = drawn(0.2)
    assert low < 0.2
    assert "utside" not in caption
    (low, _), caption = drawn(-9.0)
    assert low > 0.0
    assert "Outside them end BiDSM-7 at −9.00." in caption


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
    (bars, _) = [part for part in artefact.figure.axes[0].containers if isinstance(part, ErrorbarContainer)]
    (low, high) = bars[2][0].get_segments()[0]
    half = 12.706205 * 0.5  # Student's t with one degree of freedom, and a deviation of sqrt(1/2) over sqrt(2)
    assert (low[1], high[1]) == pytest.approx((-0.5 - half, -0.5 + half))
    assert artefact.title == "BiDSM: inner steps K and unrolled steps N (board)"
    assert " ".join(artefact.figure.axes[0].get_ylabel().split()) == "test Fisher divergence (up to a constant)"


def test_ablations_of_k_and_n_mix_no_models() -> None:
    """Variants of one method may differ in their model, too: of those only the ones that are alike."""
    held = Held()
    for k, n, units in ((5, 0, 16), (20, 0, 16), (5, 5, 16), (5, 0, 64)):
        of = {"inner_steps": str(k), "unroll_steps": str(n), "model_hidden": str(units)}
        held.add(f"BiDSM-{n} [K={k}, m={units}]", "bidsm", 0, **{FD: float(units), "time/ms_per_step": 1.0},
                 **{f"param.{name}": value for name, value in of.items()})  # fmt: skip
    table = built(ablations, held)["ablation-kn-bidsm-board"].numbers
    assert table[["K", "N", "quality"]].to_numpy().tolist() == [[5, 0, 16], [5, 5, 16], [20, 0, 16]]


def test_what_is_far_off_does_not_flatten_the_ablation_of_k_and_n() -> None:
    held = Held()
    for k, qualities in ((0, (-400.0, -300.0, 1.2)), (1, (1.0, 2.0, 4.0)), (5, (1.5, 3.0, 3.5))):
        for n, quality in zip((0, 1, 5), qualities, strict=True):
            held.add(f"BiDSM-{n} [K={k}]", "bidsm", 0, **{"test/log_likelihood": quality, "time/ms_per_step": 1.0,
                     "param.inner_steps": str(k), "param.unroll_steps": str(n)})  # fmt: skip
    artefact = built(ablations, held)["ablation-kn-bidsm-board"]
    assert artefact.figure is not None
    quality, _ = artefact.figure.axes
    low, high = quality.get_ylim()
    assert -2 < low < 1.0 < 4.0 < high < 6
    (arrows,) = [line for line in quality.lines if line.get_marker() == "v" and line.get_linestyle() == "None"]
    assert list(arrows.get_xdata()) == [0, 1]
    assert all(low < y < 1.0 for y in arrows.get_ydata())
    assert "an arrow at the edge" in artefact.caption
    assert artefact.numbers["quality"].min() == -400


def test_ablations_of_minibatches() -> None:
    held = Held()
    for size in (25, 100):
        held.add("DSM", "dsm", 0, task=f"batch{size}", **{FD: -size, "time/ms_per_step": 1.0,
                 "param.batch_size": str(size), "param.inner_steps": math.nan, "param.unroll_steps": math.nan}
                 )  # fmt: skip
    artefact = built(ablations, held)["ablation-minibatch"]
    assert artefact.figure is not None
    (axes,) = artefact.figure.axes
    assert [(label.get_position()[0], label.get_text()) for label in axes.get_xticklabels()] == [
        (25, "25"),
        (100, "100"),
    ]
    table = artefact.numbers
    assert table[["minibatch", "variant", "quality"]].to_numpy().tolist() == [[25, "DSM", -25], [100, "DSM", -100]]


NO_COUNT = ("abc", "", "0x", "inf", "1e400", "nan", "1e300", "-5")


def test_what_counts_nothing_is_left_out_of_ablations() -> None:
    """Hyper-parameters are texts, and those of a file of results may hold anything."""
    held, cell = Held(), {FD: 1.0, "time/ms_per_step": 1.0}
    params = {"param.inner_steps": "5", "param.unroll_steps": "0", "param.batch_size": "100"}
    for n in (0, 5, 10):
        held.add(f"BiDSM-{n}", "bidsm", 0, **cell, **params | {"param.unroll_steps": str(n)})
    held.add("5", "bidsm", 0, **cell, **params | {"param.batch_size": "200"})  # a name that could be a number
    for name in params:
        for text in NO_COUNT:
            held.add(f"{name} {text}", "bidsm", 0, **cell, **params | {name: text})
    held.add("none", "bidsm", 0, **cell, **params | {"param.batch_size": "0"})  # a logarithmic axis has no place for it
    found = built(ablations, held)
    assert found["ablation-kn-bidsm-board"].numbers[["K", "N"]].to_numpy().tolist() == [[5, 0], [5, 5], [5, 10]]
    sizes = found["ablation-minibatch"]
    assert set(sizes.numbers["minibatch"]) == {100, 200}
    for artefact in found.values():
        document.render(artefact, "svg")
        assert artefact.table is not None
        assert not artefact.table.written.empty


def test_a_plane_is_drawn_to_one_scale_unless_it_is_long_and_narrow(tmp_path: Path) -> None:
    def aspect(first: np.ndarray, second: np.ndarray) -> Any:
        held = learning(Held(), {"SM": ("sm", 0.3)})
        more = {"first": first, "second": second, "points": np.tile([first[3], second[3]], (9, 1))}
        held.arrays["grbm-paper-board-SM-0", "density"] = {
            "density": np.full((len(second), len(first)), 1.0), "step": np.array(1000), **more}  # fmt: skip
        return {axes.get_aspect() for axes in shown(built(figure2, held, tmp_path)["figure2-board"]).values()}

    assert aspect(np.linspace(-2, 3, 20), np.linspace(-1, 2, 30)) == {1.0}
    assert aspect(np.linspace(-2, 3, 20), np.linspace(-100, 200, 30)) == {"auto"}
