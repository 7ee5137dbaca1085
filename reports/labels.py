"""Names beside points and at the ends of curves, where they lie over neither each other nor what is drawn."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

_MARKER = 4  # points around a marker's middle that belong to it
_SIDES = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))
_DISTANCES = (5, 9, 14, 20, 27, 35, 44, 54)  # points
_AWAY = 10  # points above or below its marker, from which on a name has a line to it
_CLEAR = 2.0  # times as far as its own marker must another be from a name without a line
_SIZE, _LINE = 6.5, 9.0  # points


@dataclasses.dataclass(frozen=True)
class Point:
    """A marker at (x, y) with a bar of y ± half, in data units, and its name."""

    name: str
    x: float
    y: float
    half: float
    colour: str


def label(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Names every point, in the first free place around it; where none is free, in the one that covers least. A name
    that is some way off, or about as near to another point, has a line to its own."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    unit = figure.dpi / 72  # pixels per point
    taken = list(itertools.chain.from_iterable(_boxes(axes, point, unit) for point in points))
    markers = axes.transData.transform([(point.x, point.y) for point in points])
    for point in sorted(points, key=lambda point: (point.x, point.y)):
        text = axes.annotate(point.name, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=_SIZE,
                             color=point.colour, ha="center", va="center")  # fmt: skip
        size = text.get_window_extent(renderer)
        middle = axes.transData.transform((point.x, point.y))
        best = min(_places(size, unit), key=lambda place: _covered(_box(middle, place, size, unit), taken, axes.bbox))
        text.set_position(best)
        box = _box(middle, best, size, unit)
        others = markers[(markers != middle).any(axis=1)]
        unclear = best[1] and (_distances(box, others) < _CLEAR * _distances(box, middle[None])).any()
        if abs(best[1]) > _AWAY or unclear:
            side, below = np.sign(best)
            across, down = (size.width * side, 0) if side else (0, size.height * below)
            start = best[0] - across / unit / 2, best[1] - down / unit / 2  # the name's edge, towards the point
            axes.annotate("", (point.x, point.y), start, textcoords="offset points",
                          arrowprops={"arrowstyle": "-", "color": point.colour, "linewidth": 0.4, "shrinkA": 0,
                                      "shrinkB": _MARKER / 2})  # fmt: skip
        taken.append(box)


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Names curves to the right of the axes, in the order of their ends and apart from each other.

    Args:
        ends: of each curve its name, last x, last y and colour.
    """
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted()).height
    apart = _LINE / 72 / inches  # of the axes' height
    ends = sorted(ends, key=lambda end: end[2])
    wanted = [(y - low) / (high - low) for *_, y, _ in ends]
    places = list(itertools.accumulate(wanted, lambda below, own: max(own, below + apart)))
    down = float(np.mean(places) - np.mean(wanted))
    over = reversed(range(len(places)))  # how many are above each
    places = [min(place - down, 1 - apart * above) for above, place in zip(over, places, strict=True)]
    for (name, x, y, colour), place in zip(ends, places, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(name, (x, y), (1.03, place), textcoords="axes fraction", va="center", color=colour,
                      fontsize=_SIZE, arrowprops=line)  # fmt: skip


def _boxes(axes: Axes, point: Point, unit: float) -> Iterator[Bbox]:
    """What a point covers: its marker and its bar."""
    x, y = axes.transData.transform((point.x, point.y))
    yield Bbox.from_extents(x - _MARKER * unit, y - _MARKER * unit, x + _MARKER * unit, y + _MARKER * unit)
    (_, low), (_, high) = axes.transData.transform([(point.x, point.y - point.half), (point.x, point.y + point.half)])
    yield Bbox.from_extents(x - unit, low, x + unit, high)


def _places(size: Bbox, unit: float) -> Iterator[tuple[float, float]]:
    """Offsets of a text's middle from its point, in points: near ones first."""
    for distance, (right, up) in itertools.product(_DISTANCES, _SIDES):
        yield right * (_MARKER + 1 + size.width / unit / 2), up * distance


def _box(middle: np.ndarray, place: tuple[float, float], size: Bbox, unit: float) -> Bbox:
    x, y = middle[0] + place[0] * unit, middle[1] + place[1] * unit
    return Bbox.from_bounds(x - size.width / 2, y - size.height / 2, size.width, size.height)


def _distances(box: Bbox, places: np.ndarray) -> np.ndarray:
    """How far places are from a box, in pixels."""
    return np.hypot(*(places - np.clip(places, box.min, box.max)).T)


def _covered(box: Bbox, taken: Sequence[Bbox], page: Bbox) -> float:
    """The area of a box that lies over others or beyond the page, in square pixels."""
    found = [Bbox.intersection(box, other) for other in [*taken, page]]
    areas = [part.width * part.height if part is not None else 0.0 for part in found]
    crossed = sum(area > 0 for area in areas[:-1])  # a name across an interval's thin bar covers little of it
    return sum(areas[:-1]) + box.width * box.height * (1 + crossed / 2) - areas[-1]
