"""Figure 4: samples; and reconstructions and receptive fields where there are any."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import paper, style, terms
from reports.artefact import Artefact
from reports.sweep import Sweep, pictures

_KINDS = {  # artifact -> (arrays in it, title, caption)
    "samples": (("samples",), "samples", "Samples of the model: {how}."),
    "reconstructions": (
        ("originals", "reconstructions"),
        "reconstructions",
        "Test images (odd rows) and E[v | E[h | v]].",
    ),
    "receptive_fields": (
        ("fields",),
        "receptive fields",
        "Columns of W of largest norm, each variant on its own scale.",
    ),
}
_ROWS = _SIDE = 6  # of a sheet
_COLUMNS, _WIDEST = 5, 2.2  # sheets in a row, and inches of one


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task and kind of picture of which there are arrays."""
    for task in sweep.tasks:
        for kind, (names, title, caption) in _KINDS.items():
            contents, runs, seed = pictures(sweep, task, kind)
            if contents:
                signed, missing = kind == "receptive_fields", len(sweep.missing(task))
                shown = {variant: {name: content[name] for name in names} for variant, content in contents.items()}
                sheets = {variant: sheet(list(arrays.values()), signed) for variant, arrays in shown.items()}
                yield Artefact(
                    name=f"figure4-{kind.replace('_', '-')}-{task}",
                    title=paper.title(4, sweep.suite, task, title)
                    if kind == "samples"
                    else f"{terms.capital(title)} ({task})",
                    caption=f"{caption.format(how=terms.how(contents.values()))} "
                    f"{terms.capital(terms.seed_at(seed, contents.values()))}.",
                    alt=f"{terms.capital(title)} of {', '.join(sheets)}.",
                    numbers=_numbers(shown),
                    runs=runs,
                    missing=missing,
                    figure=style.mark(draw(sheets, signed), missing),
                    arrays={f"{variant} {name}": array for variant, arrays in shown.items()
                            for name, array in arrays.items()},
                )  # fmt: skip


def sheet(arrays: list[np.ndarray], strongest: bool) -> np.ndarray:
    """Images [n, (3,) height, width] in a square of rows and columns, NaN between them; of two arrays rows in turn."""
    arrays = [array.squeeze(1) if array.ndim == 4 and array.shape[1] == 1 else array for array in arrays]  # grey
    if strongest:
        images = arrays[0]
        order = np.argsort(-np.linalg.norm(images.reshape(len(images), -1), axis=1))
        arrays = [images[order]]
    rows = [array[start : start + _SIDE] for start in range(0, _SIDE * _ROWS, _SIDE) for array in arrays][:_ROWS]
    return paged([row for row in rows if len(row)], _SIDE)


def paged(rows: Sequence[np.ndarray], across: int) -> np.ndarray:
    """Rows of up to ``across`` images, [n, (3,) height, width] each, on one page, NaN between them."""
    channels = rows[0].shape[1] if rows[0].ndim == 4 else None
    height, width = rows[0].shape[-2:]
    page = np.full((len(rows) * (height + 1), across * (width + 1), *([channels] if channels else [])), np.nan)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            page[i * (height + 1) : i * (height + 1) + height, j * (width + 1) : j * (width + 1) + width] = (
                np.moveaxis(image, 0, -1) if channels else image
            )
    return page


def _numbers(shown: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Of the pixels of each array: mean, smallest, largest."""
    return pd.DataFrame(
        [{"variant": variant, "array": name, "mean": array.mean(), "smallest": array.min(), "largest": array.max()}
         for variant, arrays in shown.items() for name, array in arrays.items()]
    )  # fmt: skip


def draw(sheets: Mapping[str, np.ndarray], signed: bool = False) -> Figure:
    """A sheet for each variant, in rows as even as can be; signed ones on a scale around 0."""
    rows = math.ceil(len(sheets) / _COLUMNS)
    columns = math.ceil(len(sheets) / rows)
    shape = next(iter(sheets.values())).shape
    width = min(style.TEXT_WIDTH / columns, _WIDEST)
    titles = [style.in_lines(title, width) for title in sheets]
    more = sum(max(title.count("\n") for title in titles[at : at + columns]) for at in range(0, len(titles), columns))
    height = rows * (width * shape[0] / shape[1] + 0.25) + 0.12 * more
    with style.look():
        figure = Figure(figsize=(columns * width, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes in grid:
            axes.set_axis_off()
    with style.look():
        for axes, title, page in zip(figure.axes, titles, sheets.values(), strict=False):
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
            axes.set_title(title, fontsize=style.PANEL)
    return figure
