"""Figure 2: densities of the same GRBM trained by different methods."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from reports import style


def checkerboard(axis: np.ndarray) -> np.ndarray:
    """The data's density: 2 on the two diagonal squares of the unit square."""
    first, second = np.meshgrid(axis, axis)
    inside = (first >= 0) & (first < 1) & (second >= 0) & (second < 1)
    return np.where(inside & ((first < 0.5) == (second < 0.5)), 2.0, 0.0)


def draw(files: Mapping[str, Path], missing: int = 0) -> Figure:
    """The data's density and that of each variant (an array file of the first seed), on one scale."""
    arrays = {variant: np.load(file) for variant, file in files.items()}
    axis = next(iter(arrays.values()))["axis"]
    panels = {"data": checkerboard(axis), **{variant: array["density"] for variant, array in arrays.items()}}
    rows = math.ceil(len(panels) / 5)
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.45 * rows), layout="constrained")
        grid = figure.subplots(rows, 5, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (title, density) in zip(grid.flat, panels.items(), strict=False):
            extent = (axis[0], axis[-1], axis[0], axis[-1])
            image = axes.imshow(density, origin="lower", extent=extent, cmap="viridis", vmin=0, vmax=4)
            axes.set_title(title)
        figure.colorbar(image, ax=grid, shrink=0.6, label="density")
        if missing:
            figure.suptitle(f"INCOMPLETE: {missing} cells are missing or failed", color="crimson")
    return figure
