"""Names lie over nothing."""

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from reports.labels import Point, label, label_ends


def drawn() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3), dpi=100)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    return figure, axes


def boxes(figure: Figure, axes: Axes) -> list[Bbox]:
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    return [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]


def test_names_of_crowded_points_lie_over_neither_each_other_nor_markers_nor_bars() -> None:
    figure, axes = drawn()
    points = [Point(f"Variant-{place}", 4 + 0.4 * (place % 3), 5 + 0.3 * (place // 3), 2.0 * (place == 0), "#000000")
              for place in range(6)]  # fmt: skip
    points.append(Point("Beside the edge", 9.9, 5, 0.0, "#000000"))
    label(figure, axes, points)
    found = boxes(figure, axes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(found, 2))
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in found)
    for point in points:
        for y in np.linspace(point.y - point.half, point.y + point.half, 9):
            assert not any(box.contains(*axes.transData.transform((point.x, y))) for box in found)


def test_names_at_the_ends_of_curves_keep_their_order_and_their_distance() -> None:
    figure, axes = drawn()
    label_ends(axes, [("x3", 10, 9.9, "#000000"), ("x1", 10, 9.7, "#000000"), ("x2", 10, 9.8, "#000000"),
                      ("x0", 10, 1.0, "#000000")])  # fmt: skip
    found = dict(zip([text.get_text() for text in axes.texts], boxes(figure, axes), strict=True))
    heights = [found[name].y0 for name in ("x0", "x1", "x2", "x3")]
    assert heights == sorted(heights)
    assert min(np.diff(heights)[1:]) == pytest.approx(9 / 72 * 100, rel=0.01)
    assert max(box.y0 for box in found.values()) <= axes.bbox.y1


def test_a_name_that_is_some_way_off_has_a_line_to_its_point() -> None:
    figure, axes = drawn()
    points = [Point(f"Variant-{place}", 5, 5 + 0.1 * place, 0.0, "#000000") for place in range(7)]
    label(figure, axes, points)
    names = [text for text in axes.texts if text.get_text()]
    away = {text.get_text() for text in names if abs(text.xyann[1]) > 10}  # type: ignore[attr-defined]
    lines = [text for text in axes.texts if not text.get_text()]
    assert 0 < len(away) < len(points)
    assert {line.xy for line in lines} >= {(one.x, one.y) for one in points if one.name in away}  # type: ignore[attr-defined]


def test_a_name_about_as_near_to_another_point_has_a_line_to_its_own() -> None:
    """A name above a marker that is not its own was taken for that one's."""
    figure, axes = drawn()
    names = ["BiDSM-1 [K=1]", "BiDSM-0 [K=2]", "BiDSM-1 [K=2]", "BiDSM-0 [K=1]"]
    points = [Point(name, x, 5, 0.0, "#000000") for name, x in zip(names, (4.0, 4.3, 5.3, 3.0), strict=True)]
    label(figure, axes, points)
    markers = {point.name: axes.transData.transform((point.x, point.y)) for point in points}
    led = {line.xy for line in axes.texts if not line.get_text()}  # type: ignore[attr-defined]
    unclear = 0
    for text, box in zip([text for text in axes.texts if text.get_text()], boxes(figure, axes), strict=True):
        away = {name: float(np.hypot(*(at - np.clip(at, box.min, box.max)))) for name, at in markers.items()}
        own = away.pop(text.get_text())
        if min(away.values()) < 1.8 * own and text.xyann[1]:  # type: ignore[attr-defined]
            unclear += 1
            assert text.xy in led  # type: ignore[attr-defined]
    assert unclear
