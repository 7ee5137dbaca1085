"""What the page knows of its curves: names, places and values."""

import re
from pathlib import Path

import pytest

from reports import document, hover, html
from reports.artefacts import figure3, figure5, ranking, summary
from tests.reports.stores import BOTH, Held, built, learning


def test_every_curve_has_its_values_where_they_are_drawn() -> None:
    artefact = built(figure3, learning(Held(), {"CD-5": ("cd", 0.4), "DSM": ("dsm", 0.3)}))["figure3-board"]
    assert artefact.figure is not None
    svg = document.render(artefact, "svg").decode()
    found = {one["name"]: one for one in html._series(artefact)}
    assert set(found) == {"CD-5", "DSM"}
    x, y, said = found["CD-5"]["points"][-1]
    assert said == "CD-5: test log-likelihood (nats) 0.410 (iteration 1,000)"
    group = svg[svg.index(f'id="series-{list(found).index("CD-5")}-') :]
    numbers = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", svg)]
    assert min(abs(right - x) + abs(down - y) for right, down in numbers) < 0.2  # a vertex of the SVG's own path
    assert group


def test_bands_and_faint_seeds_are_switched_with_their_curve() -> None:
    artefact = built(figure3, learning(Held(), {"CD-5": ("cd", 0.4)}))["figure3-board"]
    ids = re.findall(r'id="(series-0-\d+)"', document.render(artefact, "svg").decode())
    assert len(ids) == len(set(ids)) == 3  # the seeds, their band and the mean


@pytest.mark.parametrize("module", [figure3, figure5, summary])
def test_marking_twice_changes_nothing(module: object) -> None:
    for artefact in built(module, learning(Held(), BOTH)).values():
        assert artefact.figure is not None
        hover.mark(artefact.figure)
        once = hover.series(artefact.figure)
        hover.mark(artefact.figure)
        assert hover.series(artefact.figure) == once
        assert all(one["colour"].startswith("#") for one in once)


def test_the_comparisons_name_the_variant_and_its_difference() -> None:
    artefact = built(ranking, learning(Held(), BOTH))["comparisons-board"]
    found = {one["name"]: one["points"] for one in html._series(artefact)}
    assert set(found) == {"CD-5", "BiDSM-5", "Mine"}
    assert [text for *_, text in found["Mine"]] == [
        "Mine: test log-likelihood (nats): difference to CD-10 −0.300"
    ]  # and none of its interval


def test_a_curve_s_button_has_its_dashes() -> None:
    artefact = built(figure3, learning(Held(), {"CD-5": ("cd", 0.4), "CD-10": ("cd", 0.3)}))["figure3-board"]
    dashes = {one["name"]: one["dashes"] for one in html._series(artefact)}
    assert dashes["CD-5"] == ""
    assert dashes["CD-10"]


def test_a_button_says_where_a_curve_ends_that_leaves_the_panel(tmp_path: Path) -> None:
    """The buttons stand in the legend's place on the page."""
    held = learning(Held(), {"CD-5": ("cd", 0.4), "CD-10": ("cd", 0.39), "DSM": ("dsm", -2.298)}, seeds=2)
    for name in ("figure3-board", "convergence-board"):
        found = {one["name"]: one["label"] for one in html._series(built(figure3, held)[name])}
        assert found == {"CD-5": "CD-5", "CD-10": "CD-10", "DSM": "DSM (to −2.29)"}
    assert html.page(document.collect(held, tmp_path)).count("DSM (to −2.29)</button>") == 2  # type: ignore[arg-type]


def test_the_summary_names_the_variant_and_its_value() -> None:
    artefact = built(summary, learning(Held(), BOTH))["summary-board"]
    said = [one["points"][0][2] for one in html._series(artefact)]
    assert "CD-10: test log-likelihood (nats) 0.510" in said


def test_the_summary_of_single_seeds_says_that_nothing_tells_them_apart() -> None:
    caption = built(summary, learning(Held(), BOTH, seeds=1))["summary-board"].caption
    assert "with one seed each nothing says whether it is better" in caption
    assert "comparisons" not in caption
    assert "comparisons say" in built(summary, learning(Held(), BOTH))["summary-board"].caption
