"""Figure 2: densities of the same model trained by different methods."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import paper, style, words
from reports.artefact import Artefact
from reports.sweep import Sweep, variants

_COLUMNS = 5
_BRIGHTEST = 4.0  # twice the data's density
_MASS = "mass on the map"
_SEEN = 0.5  # of the mass, below which a map says so


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task in the plane."""
    for task in sweep.tasks:
        done = sweep.of(task)
        first = done[done["seed"] == done["seed"].min()].set_index("variant")
        arrays, runs = dict[str, Mapping[str, np.ndarray]](), list[str]()
        for variant in variants(done)[: style.MANY]:
            run = first["run"].get(variant)
            file = run and sweep.store.artifact(run, "density", sweep.folder / run)
            if file:
                arrays[variant], runs = dict(np.load(file)), [*runs, run]
        if arrays:
            missing, axis = len(sweep.missing(task)), next(iter(arrays.values()))["axis"]
            yield Artefact(
                name=f"figure2-{task}",
                title=paper.title(2, task, "densities"),
                caption=f"Density of the trained model on the {task} beside the data's, on the square from "
                f"{axis[0]:g} to {axis[-1]:g} in both coordinates and on one scale from 0 to "
                f"{_BRIGHTEST:g}, twice the data's density; what is brighter has the brightest colour. "
                f"{words.capital(words.seed_at(done['seed'].min(), arrays.values()))}. A model with less than half of "
                f"its mass on the map is marked. "
                + ("The paper's Figure 2 shows the data and a choice of these; it prints no numbers."
                   if paper.has(2, task) else ""),
                alt=f"Density maps of {', '.join(arrays)} beside the data's density.",
                numbers=_numbers(arrays),
                runs=runs,
                missing=missing,
                figure=style.mark(draw(arrays), missing),
                arrays={"axis": axis} | {variant: array["density"] for variant, array in arrays.items()},
            )  # fmt: skip


def checkerboard(axis: np.ndarray) -> np.ndarray:
    """The data's density: 2 on the two diagonal squares of the unit square."""
    first, second = np.meshgrid(axis, axis)
    inside = (first >= 0) & (first < 1) & (second >= 0) & (second < 1)
    return np.where(inside & ((first < 0.5) == (second < 0.5)), 2.0, 0.0)


def _numbers(arrays: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Of each map: how much of the mass is on the page, and where the data has any."""
    rows = []
    for variant, array in arrays.items():
        density, axis = array["density"], array["axis"]
        cell = float(axis[1] - axis[0]) ** 2
        rows.append(
            {
                "variant": variant,
                _MASS: float(density.sum()) * cell,
                "mass on the data's squares": float(density[checkerboard(axis) > 0].sum()) * cell,
                "highest density": float(density.max()),
            }
        )
    return pd.DataFrame(rows)


def draw(arrays: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """The data's density and that of each variant."""
    axis, numbers = next(iter(arrays.values()))["axis"], _numbers(arrays).set_index("variant")
    panels = {"data": checkerboard(axis), **{variant: array["density"] for variant, array in arrays.items()}}
    rows = math.ceil(len(panels) / _COLUMNS)
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.45 * rows), layout="constrained")
        grid = figure.subplots(rows, _COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (title, density) in zip(grid.flat, panels.items(), strict=False):
            extent = (axis[0], axis[-1], axis[0], axis[-1])
            image = axes.imshow(density, origin="lower", extent=extent, cmap="viridis", vmin=0, vmax=_BRIGHTEST)
            axes.set_title(title)
            mass = numbers[_MASS].get(title, 1.0)
            if mass < _SEEN:
                axes.text(0.5, 0.5, f"{mass:.0%} of the mass\non this map", transform=axes.transAxes, color="white",
                          fontsize=6.5, ha="center", va="center")  # fmt: skip
        figure.colorbar(image, ax=grid, shrink=0.6, label="density", extend="max")
    return figure
