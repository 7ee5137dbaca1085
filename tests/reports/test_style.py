"""One look for all figures: colours that are told apart and seen on both pages, axes that say where they are."""

import dataclasses
import itertools
import json
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from baselines.cd import CD
from benchmark.tasks import registry
from reports import methods, style
from reports.artefacts import (
    ablations,
    cost,
    figure1,
    figure2,
    figure3,
    figure5,
    ranking,
    summary,
)
from reports.methods import BEFORE, FAMILIES
from tests.reports.stores import BOTH, Held, biased, built, learning

VISIONS = {  # Machado et al. 2009: normal, and without the middle or the long wavelengths; of linear RGB
    "normal": np.eye(3),
    "deutan": np.array([[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "protan": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]]),
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def linear(colour: str) -> np.ndarray:
    """Linear RGB of an sRGB colour."""
    return np.array([x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)])


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB, for the white of D65."""
    x, y, z = np.cbrt(XYZ @ rgb.clip(1e-4, 1) / np.array([0.95047, 1.0, 1.08883]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_of_a_family_are_told_apart(vision: str) -> None:
    """By a distance in CIELAB of 15, six times what is just seen; all of them by 15 with normal vision."""
    seen = {method: lab(VISIONS[vision] @ linear(method.colour)) for method in BEFORE.values()}
    for one, other in itertools.combinations(seen, 2):
        if vision == "normal" or one.family == other.family:
            assert np.linalg.norm(seen[one] - seen[other]) >= 15, (one, other)


def test_methods_are_drawn_as_their_classes_say() -> None:
    """The table of what was run before 0.2.0 is what the classes declare."""
    said = {one: registry.drawn_as(found) for one, found in registry.methods().items()}
    package = {one: content for one, content in said.items() if one in BEFORE}
    assert package == {
        one: {"label": of.label, "family": of.family, "colour": of.colour, "marker": of.marker}
        for one, of in BEFORE.items()
    }
    assert {content["family"] for content in said.values()} <= set(FAMILIES)
    assert methods.method("cd") == methods.method("cd", json.dumps(said["cd"])) == BEFORE["cd"]


def test_a_method_of_one_s_own_is_drawn_as_it_says() -> None:
    look = {"label": "Mine", "family": "Flows", "colour": "#123456", "marker": "o"}
    held = learning(Held(), {"Mine-2": ("mine", 0.5), "Mine-3": ("mine", 0.4)}, drawn_as=json.dumps(look))
    learning(held, {"CD-5": ("cd", 0.3), "Plain": ("plain", 0.2)})
    frame = held.cells("grbm", "paper")
    looks = style.looks(methods.of_variants(frame))
    assert looks["Mine-2"][:2] == ("#123456", "o")
    assert looks["Mine-3"].colour == "#123456"
    assert looks["Mine-2"].marker != looks["Mine-3"].marker
    assert looks["Mine-2"].dashes != looks["Mine-3"].dashes
    assert looks["CD-5"][:2] == (BEFORE["cd"].colour, BEFORE["cd"].marker)
    figure = built(figure3, held)["figure3-board"].figure
    assert figure is not None
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["Contrastive divergence", "Flows", "Other"]


@pytest.mark.parametrize("tag", ["", "{", "[1]", '{"colour": "no colour", "marker": "o"}', '{"colour": 1}', "null"])
def test_a_look_that_somebody_has_altered_is_left_out(tag: str) -> None:
    assert methods.method("mine", tag) == methods.Method("mine", "mine")


def test_a_colour_is_not_inherited_and_a_family_is() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(CD):
        id: ClassVar[str] = "mine"
        label: ClassVar[str] = "{k}-step CD"

    assert registry.drawn_as(Mine) == {"label": "mine", "family": CD.family, "colour": "", "marker": ""}


def contrast(one: str, other: str) -> float:
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05) of relative luminances."""

    def luminance(colour: str) -> float:
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_method_has_a_colour_and_a_marker_that_are_seen_on_both_pages() -> None:
    methods = BEFORE.values()
    assert len({method.colour for method in methods}) == len({method.marker for method in methods}) == len(methods)
    assert len({style.steps(number) for number in (0, 1, 2, 5, 10, 20, 40, 50)}) == 8


def test_variants_of_methods_of_one_s_own_are_told_apart_in_every_figure() -> None:
    held = learning(Held(), {"Mine [a=1]": ("mine", 0.5), "Mine [a=2]": ("mine", 0.4), "CD-5": ("cd", 0.3)})
    looks = style.looks({row["variant"]: methods.method(row["method"]) for row in held.rows})
    assert looks["CD-5"].colour == BEFORE["cd"].colour
    assert len({look.colour for look in looks.values()}) == len({look.marker for look in looks.values()}) == 3
    for module, name in ((figure3, "figure3-board"), (cost, "cost-board"), (summary, "summary-board"),
                         (ranking, "comparisons-board")):  # fmt: skip
        figure = built(module, held)[name].figure
        assert figure is not None
        for axes in figure.axes:
            for line in axes.lines:
                if line.get_gid() in looks:
                    assert line.get_color() == looks[line.get_gid()].colour, (name, line.get_gid())
                    assert line.get_marker() == looks[line.get_gid()].marker, (name, line.get_gid())
                    assert len(np.asarray(line.get_xdata())) == 1 or module is figure3


def test_figure5_has_the_colours_of_the_methods() -> None:
    figure = built(figure5, learning(Held(), {"BiDSM-0": ("bidsm", 0.3), "BiDSM-5": ("bidsm", 0.2)}))["figure5-board"]
    lines = figure.figure.axes[0].lines  # type: ignore[union-attr]
    assert {line.get_color() for line in lines} == {BEFORE["bidsm"].colour}
    assert len({line.get_linestyle() for line in lines}) == len({line.get_marker() for line in lines}) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [2, 3, 20])
def test_long_names_have_room(count: int) -> None:
    """No name is cut, and neither names nor the numbers of the axis lie over each other."""
    names = [f"FD-SSM [ε={place / 100}, data_noise=0.05, hidden=12, K=10]" for place in range(count)]
    held = learning(Held(), {name: ("fdssm", 0.5 - place / 1000) for place, name in enumerate(names)})
    for module, name in ((summary, "summary-board"), (ranking, "comparisons-board")):
        figure = built(module, held)[name].figure
        assert figure is not None
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        with style.look():
            figure.draw_without_rendering()
        (axes,) = figure.axes
        assert axes.get_window_extent().width > 0.3 * figure.bbox.width
        (low, high), ticks = axes.get_xlim(), zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        across = [text.get_window_extent(renderer) for at, text in ticks if low <= at <= high]
        rows = [text.get_window_extent(renderer) for text in axes.get_yticklabels()]
        for labels in (across, rows):
            assert not any(one.overlaps(other) for one, other in itertools.combinations(labels, 2))
            assert all(figure.bbox.x0 <= one.x0 and one.x1 <= figure.bbox.x1 for one in labels)
        assert axes.xaxis.label.get_window_extent(renderer).y0 >= 0


def test_what_leaves_a_panel_of_very_many_variants_is_named_the_worst_first() -> None:
    ends = {f"Mine-{n:02}": ("mine", 0.5 - 0.001 * n) for n in range(70)} | {
        f"Bad-{n}": ("mine", -100.0 * n) for n in range(1, 6)
    }
    figure = built(figure3, learning(Held(), ends))["figure3-board"].figure
    assert figure is not None
    (title,) = [axes.get_legend().get_title().get_text() for axes in figure.axes if axes.get_legend()]
    said = " ".join(title.split())
    assert said.startswith("75 variants: see the CSV file beyond the panel: Bad-5 (to −500), Bad-4 (to −400), Bad-3")
    assert said.endswith("and 2 more")


@pytest.mark.parametrize("count", [14, 20])
def test_a_legend_in_figure3_lies_over_nothing(count: int) -> None:
    """Of so many names that stand in one column, since some say where they end."""
    ends = {f"Mine-{n:02} [K=20]": ("mine", 0.5 if n % 3 else -100.0 - n) for n in range(count)}
    figure = built(figure3, learning(Held(), ends | {"DSM": ("dsm", 0.5)}))["figure3-board"].figure
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    with style.look():
        figure.draw_without_rendering()
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert len(legends) == 2
    named = {text.get_text() for legend in legends for text in legend.get_texts()}
    assert ("Mine-03 [K=20] (to −103)" in named) == (count <= 16)  # lines at most
    assert all(axes.bbox.height > 0.1 * figure.bbox.height for axes in figure.axes)
    for legend in legends:
        box = legend.get_window_extent(renderer)
        assert figure.bbox.y0 <= box.y0
        assert not any(box.overlaps(axes.get_tightbbox(renderer, for_layout_only=True)) for axes in figure.axes
                       if axes.get_legend() is not legend)  # fmt: skip


def test_a_short_logarithmic_axis_has_more_than_one_number() -> None:
    for low, high in ((1.1, 1.9), (0.21, 0.9), (2.2, 4.8), (0.05, 30.0), (12.0, 13.5)):
        axes = Figure().add_subplot()
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        style.plain(axes.xaxis)
        assert 3 <= sum(low <= tick <= high for tick in axes.get_xticks()) <= 8, (low, high)


def test_variants_that_cost_the_same_are_seen() -> None:
    axes = built(cost, learning(Held(), BOTH))["cost-board"].figure.axes[0]  # type: ignore[union-attr]
    low, high = axes.get_xlim()
    assert high > 1.5 * low


def test_curves_of_a_family_that_lie_on_each_other_are_both_seen() -> None:
    looks = style.looks({BEFORE[one].label: BEFORE[one] for one in ("sm", "ssm", "dsm", "mdsm", "nce", "vnce")})
    assert looks["SM"].dashes == "-"  # is drawn first
    assert len({str(looks[name].dashes) for name in ("SM", "SSM", "DSM", "MDSM")}) == 4
    assert looks["NCE"].dashes != looks["VNCE"].dashes


def test_variants_of_one_method_are_told_apart_by_more_than_dashes() -> None:
    """Eight variants of BiMDSM had one colour, one marker, and two of them the same dashes."""
    method = {f"BiMDSM-{n}": BEFORE["bimdsm"] for n in range(8)} | {"BiDSM-5": BEFORE["bidsm"]}
    looks = style.looks(method)
    mine = [looks[f"BiMDSM-{n}"] for n in range(8)]
    assert mine[0].marker == BEFORE["bimdsm"].marker
    assert {look.colour for look in mine} == {BEFORE["bimdsm"].colour}
    assert len({str(look.marker) for look in mine}) == 7
    assert len({(str(look.marker), str(look.dashes)) for look in mine}) == 8
    assert BEFORE["bidsm"].marker not in {look.marker for look in mine}


def of_two() -> Held:
    """One's own results, and the reference's beside them."""
    held = learning(Held(), {"CD-1": ("cd", 0.5), "CD-5": ("cd", 0.4), "PCD-1": ("pcd", 0.3)}, source="")
    others = {"CD-1 (reference)": ("cd", 0.51), "CD-5 (reference)": ("cd", 0.41), "DSM (reference)": ("dsm", 0.4)}
    return learning(held, others, source="reference")


def test_the_reference_s_variants_are_thin_dashed_and_hollow_beside_one_s_own() -> None:
    looks = style.looks(methods.of_variants(of_two().cells("grbm", "paper")))
    for name in ("CD-1", "CD-5"):
        own, other = looks[name], looks[f"{name} (reference)"]
        assert own[:2] == other[:2]
        assert (own.dashes, other.dashes) == ("-", "--")
        assert "markerfacecolor" not in own.line
        assert other.line["markerfacecolor"] == "none"
        assert other.line["linewidth"] < 1
    assert looks["CD-1"].marker != looks["CD-5"].marker
    assert looks["DSM (reference)"].thin
    assert not looks["PCD-1"].thin
    (figure, caption), (points, of_points) = [
        (artefact.figure, artefact.caption)
        for artefact in (built(figure3, of_two())["figure3-board"], built(cost, of_two())["cost-board"])
    ]
    assert figure is not None
    assert points is not None
    curves = {line.get_label(): line for line in figure.axes[0].lines if line.get_marker() != "None"}
    assert curves["CD-1"].get_linestyle() == "-"
    assert curves["CD-1 (reference)"].get_linestyle() == "--"
    assert curves["CD-1 (reference)"].get_markerfacecolor() == "none"
    assert (
        "Whole lines with full markers are one's own, thin dashed ones with hollow markers those of (refer" in caption
    )
    hollow = {line.get_gid() for line in points.axes[0].lines if line.get_markerfacecolor() == "none"}
    assert hollow == {"CD-1 (reference)", "CD-5 (reference)", "DSM (reference)"}
    assert "Full markers are one's own, hollow ones those of (reference)." in of_points


def test_of_one_source_nothing_is_thin() -> None:
    held = learning(Held(), {"CD-1": ("cd", 0.5), "PCD-1": ("pcd", 0.3)}, source="reference")
    method = methods.of_variants(held.cells("grbm", "paper"))
    assert not any(look.thin for look in style.looks(method).values())
    assert "one's own" not in built(figure3, held)["figure3-board"].caption


def test_a_long_name_of_a_measure_is_not_cut() -> None:
    held = Held()
    for place, variant in enumerate(("A", "B", "C", "D")):
        curves = {"test/posterior_fisher_divergence": lambda seed, step, place=place: float(step + place)}
        held.add(variant, "dsm", 0, curves=curves)
    grid = pd.DataFrame({"K": 5.0, "N": [0.0, 1.0], "quality": 1.0, "± 95%": 0.1, "ms per iteration and seed": 2.0})
    of_steps, _ = ablations.draw(grid, "test/posterior_fisher_divergence")
    for figure in (built(figure3, held)["figure3-board"].figure, of_steps):
        assert figure is not None
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        with style.look():
            figure.draw_without_rendering()
        labels = [axes.yaxis.label for axes in figure.axes if axes.get_ylabel()]
        assert len(labels) == 2
        for label in labels:
            box = label.get_window_extent(renderer)
            assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1


def test_columns_of_figure5_have_names_of_their_own() -> None:
    tag = json.dumps({"label": "BiDSM", "family": "Bi-level score matching"})
    held = learning(Held(), {"BiDSM-0": ("bidsm", 0.3), "BiSSM-0": ("bissm", 0.3)})
    learning(held, {"BiDSM-0 + GMM": ("bidsm_gmm", 0.2)}, drawn_as=tag)
    figure = built(figure5, held)["figure5-board"].figure
    assert figure is not None
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["BiSSM", "BiDSM (bidsm)", "BiDSM (bidsm_gmm)"]


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_panels_of_figure5_are_wide_enough_and_legends_touch_nothing(count: int) -> None:
    methods = ["bissm", "bidsm", "bimdsm", "vages_dsm", "vages_mdsm", "vages_ksd"][:count]
    made = {f"{method} [damping={n}.0]": (method, 0.3) for method in methods for n in range(4)}
    figure = built(figure5, learning(Held(), made))["figure5-board"].figure
    assert figure is not None
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == count
    for axes in shown:
        assert axes.get_window_extent().width / figure.dpi > 1.3
        assert axes.get_window_extent().height / figure.dpi > 0.7
    boxes = [axes.get_legend().get_window_extent() for axes in shown]  # type: ignore[union-attr]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1 for box in boxes)


@pytest.mark.parametrize("families", [1, 2, 3, 4, 5])
def test_no_panel_of_figure3_is_blank(families: int) -> None:
    methods = ["cd", "nce", "sm", "bidsm", "mine"][:families]
    figure = built(figure3, learning(Held(), {method: (method, 0.5) for method in methods}))["figure3-board"].figure
    assert figure is not None
    panels = [axes for axes in figure.axes if axes.get_title() != "The variants that end best"]
    assert len(panels) == families
    assert all(axes.lines for axes in panels)
    drawn = figure.axes if families == 5 else panels  # the leading ones are in the free place
    places = [where for axes in drawn if (where := axes.get_subplotspec()) and where.get_gridspec().ncols > 1]
    assert all(where.colspan.stop - where.colspan.start == 1 for where in places)  # none is wider than others
    assert not places or len(places) % places[0].get_gridspec().ncols == 0


def test_points_that_are_pixels_are_seen_on_both_pages() -> None:
    assert contrast(style.POINT, "#ffffff") >= 3
    assert contrast(style.POINT, "#14161a") >= 3
    points = np.random.default_rng(0).random((1000, 2))
    axis = np.linspace(0, 1, 5)
    figure = figure2.draw({"SM": {"first": axis, "second": axis, "density": np.ones((5, 5)), "points": points}},
                          {"SM": "#000000"})  # fmt: skip
    (scattered,) = figure.axes[0].collections
    assert scattered.get_rasterized()
    assert {to_hex(colour) for colour in np.atleast_2d(scattered.get_facecolor())} == {style.POINT}


@pytest.mark.parametrize("end", [1.3, 9.0, 50.0, 900.0, 1e5])
def test_the_numbers_of_a_logarithmic_axis_do_not_lie_over_each_other(end: float) -> None:
    figure = Figure(figsize=(style.COLUMN_WIDTH, 2), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", xlim=(1, end))
    style.plain(axes.xaxis)
    with style.look():
        figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    labels = [text for text in axes.get_xticklabels(which="both") if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in labels]
    assert len(boxes) >= 2
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_words_are_drawn_as_they_are_and_powers_as_powers() -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.loglog([1e-3, 1e4], [1, 1e8], label="costs $2_{ and $3")
    axes.set_title("$x$")
    axes.legend()
    names = figure.add_axes((0.8, 0.8, 0.1, 0.1))
    names.set_yticks([0, 1], ["a $_{ b $", "10$^{2}$"])
    names.set_xscale("symlog", linthresh=1)
    names.set_xlim(-100, 100)
    style.as_written(figure)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if "$" in text.get_text()]  # type: ignore[attr-defined]
    read = {text.get_text(): text.get_parse_math() for text in texts}  # type: ignore[attr-defined]
    literal = {"costs $2_{ and $3", "$x$", "a $_{ b $", "10$^{2}$"}
    assert {text for text, formula in read.items() if not formula} == literal
    assert {r"$\mathdefault{10^{-3}}$", r"$\mathdefault{-10^{2}}$", r"$\mathdefault{0}$"} <= set(read)


@pytest.mark.parametrize("module", [figure1, figure3, figure5, cost, ranking, ablations])
def test_everything_that_is_drawn_is_seen_on_both_pages(module: Any) -> None:
    held = learning(biased(), {"CD-1": ("cd", 0.5), "Mine": ("mine", 0.2)})
    for n in (0, 1, 10, 20):
        steps = {"param.inner_steps": "5", "param.unroll_steps": str(n)}
        learning(held, {f"BiDSM-{n}": ("bidsm", n / 30)}, **steps)
    drawn = 0
    for artefact in built(module, held).values():
        for part in artefact.figure.findobj() if artefact.figure is not None else []:
            if isinstance(part, Line2D | Text | LineCollection) and part.get_alpha() is None:
                for colour in np.atleast_2d(to_rgba_array(part.get_color())):
                    if to_hex(colour) not in (style.INK, to_hex(style.GRID)):
                        drawn += 1
                        assert contrast(to_hex(colour), "#ffffff") >= 3, part
                        assert contrast(to_hex(colour), "#14161a") >= 3, part
    assert drawn


def test_series_have_looks_of_their_own() -> None:
    looks = [style.series(place) for place in range(24)]
    assert len(set(looks)) == 24
    assert len({colour for colour, _ in looks[:8]}) == 8


def test_names_are_broken_at_spaces_and_equal_signs_alone() -> None:
    name = "LEBM-60 [prior_chains=persistent, posterior_steps=0]"
    assert style.in_lines(name, 10) == name
    assert style.in_lines(name, 1.2) == "LEBM-60\n[prior_chains=\npersistent,\nposterior_steps=0]"
    assert "".join(style.in_lines(name, 0.1).split()) == name.replace(" ", "")
    assert "posterior_steps=" in style.in_lines(name, 0.1).split("\n")
