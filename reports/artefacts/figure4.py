"""Figure 4: samples; and reconstructions and receptive fields where there are any."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import style
from reports.artefact import Artefact
from reports.sweep import Sweep, variants

_KINDS = {  # artifact -> (arrays in it, title, caption)
    "samples": (("samples",), "Figure 4: samples", "Samples of the model, started at training data and run for long."),
    "reconstructions": (
        ("originals", "reconstructions"),
        "Reconstructions",
        "Test images (odd rows) and E[v | E[h | v]].",
    ),
    "receptive_fields": (
        ("fields",),
        "Receptive fields",
        "Columns of W of largest norm, each variant on its own scale.",
    ),
}
_ROWS = _SIDE = 6  # of a sheet


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task and kind of picture of which there are arrays."""
    for task in sweep.tasks:
        done = sweep.of(task)
        first = done[done["seed"] == done["seed"].min()].set_index("variant")
        for kind, (names, title, caption) in _KINDS.items():
            sheets, runs = dict[str, np.ndarray](), list[str]()
            for variant in variants(done)[: style.MANY]:
                run = first["run"].get(variant)
                file = run and sweep.store.artifact(run, kind, sweep.folder / run)
                if file:
                    content = np.load(file)
                    sheets[variant], runs = (
                        sheet([content[name] for name in names], kind == "receptive_fields"),
                        [*runs, run],
                    )
            if sheets:
                missing = len(sweep.missing(task))
                yield Artefact(
                    name=f"figure4-{kind.replace('_', '-')}-{task}",
                    title=f"{title} ({task})",
                    caption=f"{caption} Seed {done['seed'].min()} of each variant, at its last iteration.",
                    alt=f"{title.rpartition(': ')[2].capitalize()} of {', '.join(sheets)}.",
                    numbers=_numbers(sheets),
                    runs=runs,
                    missing=missing,
                    figure=style.mark(draw(sheets, signed=kind == "receptive_fields"), missing),
                )


def sheet(arrays: list[np.ndarray], strongest: bool) -> np.ndarray:
    """Images [n, (3,) height, width] in a square of rows and columns, NaN between them; of two arrays rows in turn."""
    if strongest:
        images = arrays[0]
        order = np.argsort(-np.linalg.norm(images.reshape(len(images), -1), axis=1))
        arrays = [images[order]]
    rows = [array[start : start + _SIDE] for start in range(0, _SIDE * _ROWS, _SIDE) for array in arrays][:_ROWS]
    rows = [row for row in rows if len(row)]
    channels = rows[0].shape[1] if rows[0].ndim == 4 else None
    height, width = rows[0].shape[-2:]
    page = np.full((len(rows) * (height + 1), _SIDE * (width + 1), *([channels] if channels else [])), np.nan)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            page[i * (height + 1) : i * (height + 1) + height, j * (width + 1) : j * (width + 1) + width] = (
                np.moveaxis(image, 0, -1) if channels else image
            )
    return page


def _numbers(sheets: Mapping[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"variant": name, "mean": np.nanmean(page), "smallest": np.nanmin(page), "largest": np.nanmax(page)}
         for name, page in sheets.items()]
    )  # fmt: skip


def draw(sheets: Mapping[str, np.ndarray], signed: bool = False) -> Figure:
    """A sheet for each variant; signed ones on a scale around 0."""
    columns = min(4, len(sheets))
    rows = math.ceil(len(sheets) / columns)
    shape = next(iter(sheets.values())).shape
    width = style.TEXT_WIDTH / columns
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, rows * (width * shape[0] / shape[1] + 0.25)), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes in grid:
            axes.set_axis_off()
    with style.look():
        for axes, (title, page) in zip(figure.axes, sheets.items(), strict=False):
            if signed:
                largest = float(np.nanmax(np.abs(page)))
                low, high, colours = -largest, largest, "RdBu_r"
                page = (page / largest + 1) / 2 if page.ndim == 3 else page
            else:
                low, high, colours = 0.0, 1.0, "gray"
                page = np.clip(page, 0, 1)
            if page.ndim == 3:  # transparent between the images, in colour too
                page = np.dstack([np.nan_to_num(page), ~np.isnan(page[..., 0])])
            axes.imshow(page, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            axes.set_title(title)
    return figure
