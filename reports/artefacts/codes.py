"""What samplers make of codes: test data and their reconstructions, paths between codes, and the errors."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from reports import style, terms
from reports.artefact import Artefact, Table
from reports.artefacts import figure4
from reports.sweep import Sweep, pictures, variants

_ABREAST = 4  # panels of points in a row
_ERROR, _STDERR, _MEAN = (
    f"codes/{name}" for name in ("reconstruction_error", "reconstruction_error_stderr", "error_of_mean")
)
_COLUMNS = {_ERROR: "error", _STDERR: "standard error", _MEAN: "error of the mean"}
Maps = Mapping[str, Mapping[str, np.ndarray]]


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task after the probe ``codes``: what was drawn, and a table of the errors."""
    for task in sweep.tasks:
        arrays, runs, seed = pictures(sweep, task, "codes")
        missing = len(sweep.missing(task))
        of: dict[str, Any] = {"runs": runs, "missing": missing}
        said = f"{terms.capital(terms.seed_at(seed, arrays.values()))}." if arrays else ""
        sought = _sought(arrays)
        planes = {variant: content for variant, content in arrays.items() if "points" in content}
        images = {variant: content for variant, content in arrays.items() if content["originals"].ndim > 2}
        if planes:
            yield Artefact(
                name=f"codes-{task}",
                title=f"Reconstructions and paths between codes ({task})",
                caption=f"Points of the training data (grey); test data (black), with lines to what the sampler makes "
                f"of the codes z found for them, {sought} (red); and what it makes of codes on straight lines between "
                f"those of two test data (blue). {said}",
                alt=f"Points, reconstructions and paths of {', '.join(planes)}.",
                numbers=_numbers(planes),
                figure=style.mark(draw(planes), missing),
                arrays=_kept(planes),
                **of,
            )
        if images:
            yield from _sheets(task, images, said, sought, of)
        table = errors(sweep, task)
        if not table.empty:
            yield Artefact(
                name=f"reconstruction-{task}",
                title=f"How much of the test data samplers can make ({task})",
                caption="Mean squared error per visible unit between test data and what a method's sampler makes of "
                f"the code z found for each, {sought}; its standard error over test data, of one seed; and the error "
                "of the training data's mean in its place. What is not found may yet be there. Means over seeds.",
                numbers=table,
                runs=list(sweep.of(task)["run"]),
                missing=missing,
                table=Table(table, dict.fromkeys([one for one in _COLUMNS.values() if one in table], "{:.3g}")),
            )


def _sheets(task: str, images: Maps, said: str, sought: str, of: dict[str, Any]) -> Iterator[Artefact]:
    """Two of them: originals over reconstructions, and paths, a row each."""
    over = {name: figure4.sheet([x["originals"], x["reconstructions"]], False) for name, x in images.items()}
    along = {name: figure4.paged(list(content["paths"]), content["paths"].shape[1]) for name, content in images.items()}
    for what, sheets, title, caption in (
        ("reconstructions", over, "Reconstructions",
         f"Test images (odd rows) and what the sampler makes of the codes z found for them, {sought}."),
        ("paths", along, "Between codes",
         "In each row what the sampler makes of codes evenly on the straight line between those found for two test "
         "images, ends included."),
    ):  # fmt: skip
        yield Artefact(
            name=f"codes-{what}-{task}",
            title=f"{title} ({task})",
            caption=f"{caption} {said}",
            alt=f"{title} of {', '.join(sheets)}.",
            numbers=_numbers(images),
            figure=style.mark(figure4.draw(sheets), of["missing"]),
            arrays=_kept(images),
            **of,
        )


def _sought(contents: Maps) -> str:
    """How codes were sought, as far as the files say it."""
    by = " or ".join(dict.fromkeys(str(content["sought"]) for content in contents.values() if "sought" in content))
    return f"z sought by {by + ' of ' if by else ''}gradient descent on the squared error from where codes are drawn"


def _kept(contents: Maps) -> dict[str, np.ndarray]:
    names = ("points", "originals", "reconstructions", "paths")
    return {f"{variant} {name}": content[name] for variant, content in contents.items() for name in names
            if name in content}  # fmt: skip


def _numbers(contents: Maps) -> pd.DataFrame:
    """Of those that are kept, the mean squared error per unit, and by how much paths are longer than their chords."""
    rows = []
    for variant, content in contents.items():
        paths = content["paths"].reshape(*content["paths"].shape[:2], -1)
        steps, chords = np.diff(paths, axis=1), paths[:, -1] - paths[:, 0]
        straight = np.linalg.norm(chords, axis=-1).clip(np.finfo(float).tiny)
        lengths = np.linalg.norm(steps, axis=-1).sum(1) / straight
        error = float(((content["originals"] - content["reconstructions"]) ** 2).mean())
        rows.append({"variant": variant, "error": error, "length of paths by that of chords": float(lengths.mean())})
    return pd.DataFrame(rows)


def errors(sweep: Sweep, task: str) -> pd.DataFrame:
    """A row for each variant that was measured; means over its seeds that are done."""
    cells, rows = sweep.of(task), []
    for variant in variants(cells):
        of_variant = cells[cells["variant"] == variant]
        means = {head: of_variant[metric].mean() for metric, head in _COLUMNS.items() if metric in of_variant}
        if any(pd.notna(value) for value in means.values()):
            rows.append({"variant": variant, **means})
    return pd.DataFrame(rows)


def draw(planes: Maps) -> Figure:
    """A panel for each variant, all on the range of the data."""
    across = min(_ABREAST, len(planes))
    down = math.ceil(len(planes) / across)
    side = style.TEXT_WIDTH / _ABREAST
    with style.look():
        figure = Figure(figsize=(across * side, down * (side + 0.2)), layout="constrained")
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in panels:
            axes.set_axis_off()
        for axes, (variant, content) in zip(panels, planes.items(), strict=False):
            axes.set_axis_on()
            _panel(axes, content)
            axes.set_title(variant, fontsize=6.5)
    return figure


def _panel(axes: Axes, content: Mapping[str, np.ndarray]) -> None:
    points, v, made = (content[name] for name in ("points", "originals", "reconstructions"))
    axes.grid(visible=False)
    axes.scatter(points[:, 0], points[:, 1], s=1, linewidths=0, color=style.POINT, alpha=0.6, rasterized=True)
    axes.add_collection(LineCollection(list(np.stack([v, made], 1)), colors=style.ALARM, linewidths=0.5), autolim=False)
    axes.scatter(v[:, 0], v[:, 1], s=2, linewidths=0, color=style.INK)
    axes.add_collection(LineCollection(list(content["paths"]), colors="#2878c8", linewidths=0.9), autolim=False)
    low, high = points.min(0), points.max(0)
    edge = 0.1 * (high - low)
    (left, bottom), (right, top) = low - edge, high + edge
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
