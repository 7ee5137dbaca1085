"""What the page needs to show values under the pointer and to switch the curves of a figure on and off.

A curve's series is its group id (``Artist.set_gid``), or its label where it has none; "_CD-5" is what belongs to a
series and has no values of its own, such as its band.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import terms

_MOST = 400  # points of a curve that can be pointed at
_NAME = re.compile(r"series-(\d+)-\d+")


def mark(figure: Figure) -> None:
    """Gives every curve, band and marker an id that tells its series, once: SVG writers keep it."""
    if hasattr(figure, "series"):
        return
    names = list[str]()
    for count, (_, artist, name) in enumerate(list(_named(figure))):
        of = name.removeprefix("_")
        if of not in names:
            names.append(of)
        artist.set_gid(f"series-{names.index(of)}-{count}")
        artist.valued = not name.startswith("_")  # type: ignore[attr-defined]
    figure.series = names  # type: ignore[attr-defined]


def _named(figure: Figure) -> Iterator[tuple[Axes, Artist, str]]:
    for axes in figure.axes:
        for artist in axes.get_children():
            label, own = artist.get_gid(), str(artist.get_label())
            if label is None and isinstance(artist, Line2D) and own and not own.startswith("_"):
                label = own
            if label:
                yield axes, artist, label


def series(figure: Figure) -> list[dict[str, Any]]:
    """Of a figure that was drawn: each series with its name, what its legend calls it, colour and points (x, y, text)
    in the SVG's units."""
    mark(figure)
    names: list[str] = figure.series  # type: ignore[attr-defined]
    found: list[dict[str, Any]] = [
        {"name": name, "label": name, "colour": "", "dashes": "", "points": []} for name in names
    ]
    for axes, artist, gid in list(_named(figure)):
        match = _NAME.fullmatch(gid)
        if match and isinstance(artist, Line2D) and artist.valued:  # type: ignore[attr-defined]
            one = found[int(match[1])]
            one["colour"] = one["colour"] or to_hex(artist.get_color())
            one["dashes"] = one["dashes"] or _dashes(artist)
            label = str(artist.get_label())
            one["label"] = one["label"] if label.startswith("_") else label  # it may say more: "DSM (to −2.30)"
            one["points"] += _points(figure, axes, artist, one["name"])
    return [one if one["colour"] else {**one, "colour": "#808080"} for one in found]


def _dashes(line: Line2D) -> str:
    """The pattern of a line as SVG has it, in widths of the line; nothing for one without gaps."""
    pattern = {"--": (3.7, 1.6), ":": (1, 1.65), "-.": (6.4, 1.6, 1, 1.6)}.get(str(line.get_linestyle()), ())
    return " ".join(f"{2 * length:g}" for length in pattern)


def _points(figure: Figure, axes: Axes, line: Line2D, name: str) -> Iterator[list[Any]]:
    data = np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])
    data = data[:: max(1, len(data) // _MOST)]
    places = line.get_transform().transform(data)
    inside = np.isfinite(places).all(axis=1) & [axes.bbox.padded(1).contains(*place) for place in places]
    for (x, y), (right, up) in zip(data[inside], places[inside], strict=True):
        scale = 72 / figure.dpi
        place = [round(right * scale, 1), round(figure.get_figheight() * 72 - up * scale, 1)]
        said = [_said(axes, "y", y), _said(axes, "x", x)]
        yield [*place, f"{name}: {said[0]} ({said[1]})" if said[0] != name else f"{name}: {said[1]}"]


def _said(axes: Axes, which: str, value: float) -> str:
    """A value with the name of its axis; the name of a tick where the axis has names."""
    axis = getattr(axes, f"{which}axis")
    labels = [text.get_text() for text in axis.get_ticklabels()]
    if axis.get_major_locator().__class__.__name__ == "FixedLocator" and any(re.search("[A-Za-z]", x) for x in labels):
        return " ".join(labels[round(value)].split()) if 0 <= round(value) < len(labels) else ""
    label = " ".join(axis.get_label_text().split())
    return f"{label} {terms.number(value)}".strip()
