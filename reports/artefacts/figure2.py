"""Figure 2: densities of the same model trained by different methods, of one or two coordinates."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from benchmark.measures.density import median, usual
from reports import paper, style, terms
from reports.artefact import Artefact
from reports.methods import of_variants
from reports.sweep import Sweep, pictures

_COLUMNS = 5
_MASS = "mass on the map"
_SEEN = 0.5  # of the mass, below which a map says so
_BINS = 50  # of a histogram
_ALIKE = 3  # times what the other coordinate spans
Maps = Mapping[str, Mapping[str, np.ndarray]]


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task whose densities were kept."""
    for task in sweep.tasks:
        arrays, runs, seed = pictures(sweep, task, "density")
        if not arrays:
            continue
        missing, first = len(sweep.missing(task)), next(iter(arrays.values()))
        plane = first["density"].ndim == 2
        yield Artefact(
            name=f"figure2-{task}",
            title=paper.title(2, sweep.suite, task, "densities"),
            caption=(_of_planes(arrays, task) if plane else _of_lines(arrays, task))
            + f" {terms.capital(terms.seed_at(seed, arrays.values()))}. A model with less than half of its mass here "
            "is marked."
            + (" The paper's Figure 2 shows the data and a choice of these; it prints no numbers."
               if paper.has(2, sweep.suite, task) else ""),
            alt=f"Densities of {', '.join(arrays)}" + (" beside the data." if "points" in first else "."),
            numbers=_numbers(arrays),
            runs=runs,
            missing=missing,
            figure=style.mark(draw(arrays, _colours(sweep, task)), missing),
            arrays={name: first[name] for name in ("first", "second", "axis", "points") if name in first}
            | {variant: array["density"] for variant, array in arrays.items()},
        )  # fmt: skip


def _colours(sweep: Sweep, task: str) -> dict[str, str]:
    return {variant: look.colour for variant, look in style.looks(of_variants(sweep.of(task, None))).items()}


def _of_planes(arrays: Maps, task: str) -> str:
    first = next(iter(arrays.values()))
    beside = (f"beside {terms.counted(len(first['points']), 'point')} of the training data" if "points" in first else
              "(these runs kept no points of the data)")  # fmt: skip
    scale = ("twice the density that half of the data lie above" if "points" in first else
             "twice the density that half of the models' mass lies above")  # fmt: skip
    (left, right), (bottom, top) = ((axis[0], axis[-1]) for axis in _axes(first))
    return (f"Density of the trained model on {task} {beside}, for v₁ from {left:.3g} to {right:.3g} and v₂ from "
            f"{bottom:.3g} to {top:.3g}, on one scale from 0 to {_brightest(arrays):.2g}, {scale}; what is brighter "
            "has the brightest colour.").replace("-", "−")  # fmt: skip


def _of_lines(arrays: Maps, task: str) -> str:
    points = next(iter(arrays.values())).get("points", ())
    return (f"Density of the trained model on {task} (line) over the histogram of "
            f"{terms.counted(len(points), 'point')} of the training data (grey). Peaks higher than twice the histogram "
            "leave the panel.")  # fmt: skip


def _axes(array: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Where the density is known, by coordinate; older files have one axis for both."""
    if "axis" in array:
        return [array["axis"]] * array["density"].ndim
    return [array[name] for name in ("first", "second")[: array["density"].ndim]]


def _brightest(arrays: Maps) -> float:
    first = next(iter(arrays.values()))
    if "points" in first:
        return 2 * usual(first["points"])
    return 2 * float(np.median([median(array["density"]) for array in arrays.values()]))


def _numbers(arrays: Maps) -> pd.DataFrame:
    """Of each density: how much of its mass is on the page, and its largest value."""
    rows = []
    for variant, array in arrays.items():
        cell = math.prod(float(axis[1] - axis[0]) for axis in _axes(array))
        density = array["density"]
        rows.append({"variant": variant, _MASS: float(density.sum()) * cell, "highest density": float(density.max())})
    return pd.DataFrame(rows)


def draw(arrays: Maps, colours: Mapping[str, str]) -> Figure:
    """The data, where they were kept, and the density of each variant."""
    first, mass = next(iter(arrays.values())), _numbers(arrays).set_index("variant")[_MASS]
    plane, points = first["density"].ndim == 2, first.get("points")
    panels: list[str | None] = [*([None] if plane and points is not None else []), *arrays]
    rows = math.ceil(len(panels) / _COLUMNS)
    columns = math.ceil(len(panels) / rows)  # rows as even as can be
    width = min(style.TEXT_WIDTH, 1.9 * columns + 0.8)
    titles = [style.in_lines(name or "data", width / columns) for name in panels]
    title = 0.16 + 0.12 * max(name.count("\n") for name in titles)  # inches
    with style.look():
        shape = _shape(first) if plane else 1.0
        height = rows * ((width - 0.9) / columns * shape + title + 0.15) + 0.25
        figure = Figure(figsize=(width, height if plane else (1.3 + title) * rows + 0.3), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        image: AxesImage | None = None
        for axes, variant, name in zip(grid.flat, panels, titles, strict=False):
            axes.grid(visible=False)
            axes.set_title(name, fontsize=style.PANEL)
            if variant is None:
                assert points is not None
                axes.scatter(points[:, 0], points[:, 1], s=0.8, linewidths=0, color=style.POINT,
                             rasterized=len(points) > 500)  # fmt: skip
                axes.set_facecolor("none")
            elif plane:
                image = _map(axes, arrays[variant], _brightest(arrays))
            else:
                _line(axes, arrays[variant], _tallest(arrays), colours[variant])
            if variant is not None and mass[variant] < _SEEN:
                axes.text(0.5, 0.5, f"{mass[variant]:.0%} of the mass\nis shown", transform=axes.transAxes,
                          color="white" if plane else style.ALARM, fontsize=6.5, ha="center", va="center")  # fmt: skip
        style.leave(figure, len(panels), columns)
        if image is not None:
            _frame(grid, _axes(first), "equal" if _alike(first) else "auto")
            figure.supxlabel("v₁", fontsize=7)
            figure.colorbar(image, ax=grid, shrink=min(1.0, 0.6 + 0.4 / rows), label="density", extend="max")
        else:
            figure.supxlabel("v₁", fontsize=8)
            figure.supylabel("density", fontsize=8)
    return figure


def _alike(first: Mapping[str, np.ndarray]) -> bool:
    """Whether both coordinates span about as much, and so are drawn to one scale."""
    one, other = (float(np.ptp(axis)) for axis in _axes(first))
    return max(one, other) <= _ALIKE * min(one, other)


def _shape(first: Mapping[str, np.ndarray]) -> float:
    """Height of a panel over its width."""
    across, up = (float(np.ptp(axis)) for axis in _axes(first))
    return up / across if _alike(first) else 1.0


def _map(axes: Axes, array: Mapping[str, np.ndarray], brightest: float) -> AxesImage:
    first, second = _axes(array)
    return axes.imshow(array["density"], origin="lower", extent=(first[0], first[-1], second[0], second[-1]),
                       cmap="viridis", vmin=0, vmax=brightest, aspect="auto", interpolation="nearest")  # fmt: skip


def _frame(grid: np.ndarray, ends: list[np.ndarray], aspect: Literal["equal", "auto"]) -> None:
    """All panels show the same part of the plane."""
    for axes in grid.flat:
        axes.set(xlim=(ends[0][0], ends[0][-1]), ylim=(ends[1][0], ends[1][-1]))
        axes.set_aspect(aspect)
        axes.locator_params(nbins=3)
        axes.tick_params(labelsize=6)
    for axes in grid[:, 0]:
        axes.set_ylabel("v₂", fontsize=7)


def _tallest(arrays: Maps) -> float:
    """What panels of one coordinate reach: the highest density, and at most twice the data's histogram."""
    first, highest = next(iter(arrays.values())), max(float(array["density"].max()) for array in arrays.values())
    if "points" not in first:
        return 1.05 * highest
    heights = float(np.histogram(first["points"], bins=_BINS, density=True)[0].max())
    return max(1.05 * heights, min(2 * heights, 1.05 * highest))


def _line(axes: Axes, array: Mapping[str, np.ndarray], top: float, colour: str) -> None:
    (values,), density = _axes(array), array["density"]
    if "points" in array:
        axes.hist(array["points"][:, 0], bins=_BINS, density=True, color="#8c929c80")
    axes.plot(values, density, color=colour)
    axes.set(xlim=(values[0], values[-1]), ylim=(0, top))
    axes.tick_params(labelsize=6)
