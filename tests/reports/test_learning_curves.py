"""Figure 3: every variant in the panel of its family, the best on a range of their own."""

import math

import numpy as np
import pytest

from reports import paper
from reports.artefacts import (
    figure3,
)
from reports.methods import BEFORE
from tests.reports.stores import BOTH, FD, LL, Held, built, learning


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
    lines = [line for line in artefact.figure.axes[0].lines if line.get_color() == BEFORE["cd"].colour]
    faint = [np.asarray(line.get_ydata()) for line in lines if line.get_alpha()]
    seeds = [value for s in (0, 0.01, 0.02) for value in (0.0, 0.384 + s, 0.4 + s, np.nan)][:-1]
    assert any(len(line) == len(seeds) and np.allclose(line, seeds, equal_nan=True) for line in faint)
    (mean,) = [line for line in lines if line.get_label() == "CD-5"]
    assert mean.get_xydata().tolist() == pytest.approx(np.array([[0, 0], [100, 0.394], [1000, 0.41]]))
    numbers = artefact.numbers[artefact.numbers["variant"] == "CD-5"]
    assert numbers["mean"].tolist() == pytest.approx([0, 0.394, 0.41])
    assert numbers["half_width"].tolist()[1:] == pytest.approx([4.302653 * 0.01 / math.sqrt(3)] * 2)
    assert numbers[["seed 0", "seed 1", "seed 2"]].to_numpy().tolist() == pytest.approx(
        np.array([[0, 0, 0], [0.384, 0.394, 0.404], [0.4, 0.41, 0.42]])
    )
    assert set(artefact.runs) == {row["run"] for row in held.rows}


def test_the_best_are_drawn_on_a_range_of_their_own() -> None:
    figure = built(figure3, learning(Held(), BOTH))["figure3-board"].figure
    assert figure is not None
    front = figure.axes[-1]
    assert {text.get_text() for text in front.texts} == {"CD-10", "CD-5"}
    assert front.get_ylim() == pytest.approx((0.41 - 0.008, 0.51 + 0.008))
    places = sorted(text.xyann[1] for text in front.texts)  # type: ignore[attr-defined]
    assert places[1] - places[0] > 0.05


def test_panels_keep_their_height_above_a_long_legend() -> None:
    """Fourteen variants of one family, as in the preset paper of grbm: constrained layout gave up, with a warning."""
    many = {f"Implicit BiDSM-{place} [damping=0.1]": ("bidsm", 0.1 + place / 100) for place in range(14)}
    figure = built(figure3, learning(Held(), BOTH | many))["figure3-board"].figure
    assert figure is not None
    figure.draw_without_rendering()
    heights = [axes.get_window_extent().height / figure.dpi for axes in figure.axes]
    assert min(heights) > 0.8
    legends = [legend.get_window_extent() for axes in figure.axes if (legend := axes.get_legend())]
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert not any(legend.overlaps(box) for legend in legends for box in boxes)


def test_the_best_are_the_first_of_the_ranking() -> None:
    """And not those whose single last evaluation is best."""
    held = learning(Held(), BOTH)
    for row in held.rows:  # the ranking's value, such as the mean of the last tenth
        row[f"selected/{LL}"] = 0.6 if row["variant"] in ("Mine", "BiDSM-5") else 0.1
    artefact = built(figure3, held)["figure3-board"]
    assert artefact.figure is not None
    assert {text.get_text() for text in artefact.figure.axes[-1].texts} == {"Mine", "BiDSM-5"}
    assert "the 2 variants that end best by the ranking's rule" in artefact.caption


@pytest.mark.parametrize(("metric", "side"), [(LL, "below"), (FD, "above")])
def test_a_low_measure_leaves_the_panel_above(metric: str, side: str) -> None:
    held = Held()
    for variant in ("A", "B"):
        held.add(variant, "dsm", 0, curves={metric: lambda seed, step: float(step)})
    assert f"ends {side} them" in built(figure3, held)["figure3-board"].caption


def test_only_the_papers_data_has_the_papers_figures() -> None:
    titles = [built(figure3, learning(Held(), BOTH, task=task))[f"figure3-{task}"].title
              for task in ("checkerboard", "board")]  # fmt: skip
    assert titles[0] == "Figure 3: test log-likelihood (nats) against iterations (checkerboard)"
    assert titles[1] == "Test log-likelihood (nats) against iterations (board)"
    assert not paper.has(3, "toy2d", "checkerboard")  # which is another one
    assert paper.title(4, "latent", "cifar10", "samples") == "Samples (cifar10)"


def test_against_time_each_point_stands_at_its_mean_time() -> None:
    numbers = built(figure3, learning(Held(), {"CD-5": ("cd", 0.4)}))["convergence-board"].numbers
    assert numbers["seconds"].tolist() == [1.0, 3.0, 21.0]
    assert numbers["half_width"].tolist()[1:] == pytest.approx([4.302653 * 0.01 / math.sqrt(3)] * 2)
    assert numbers.iloc[1][["seed 2", "seed 2 seconds"]].tolist() == pytest.approx([0.404, 4.0])


def test_one_measurement_makes_no_curve() -> None:
    held = Held()
    held.add("DSM", "dsm", 0, **{LL: 1.0})
    held.values["grbm-paper-board-DSM-0", LL] = [(1000, 1.0)]
    assert built(figure3, held) == {}


def test_curves_that_all_end_below_their_start_are_seen_whole() -> None:
    figure = built(figure3, learning(Held(), {"Mine": ("mine", -50.0)}))["figure3-board"].figure
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert low < -50.0 < 0.0 < high
