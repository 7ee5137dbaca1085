"""What a trained model looks like, as arrays (``.npz``, which reports redraw) and as images.

In the plane: its density. For images: Gibbs samples, test images above their reconstructions, and the receptive fields,
which are the columns of W.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.datasets import DataSet
from bism.fitted import Fitted
from bism.likelihood import grid_density

_GRID = (-0.25, 1.25, 201)  # the square that densities are drawn on
_SHOWN = 64  # samples, and receptive fields
_COLUMNS = 8
_SWEEPS = 500


def can_picture(data: DataSet, fitted: Fitted) -> bool:
    """Whether there is something to show: a density in the plane, or vectors that are images of a model with
    conditionals; images of other models are sampled by a probe."""
    return data.train.shape[1:] == (2,) or (data.image is not None and fitted.has_conditionals)


def picture(fitted: Fitted, seed: int, data: DataSet, folder: Path, title: str) -> None:
    """Writes everything there is to show of one seed at this step."""
    folder.mkdir(parents=True, exist_ok=True)
    model, step = fitted.model(seed), fitted.step
    if data.train.shape[1:] == (2,):
        axis, density = grid_density(model.cpu(), *_GRID)
        file = save_arrays(folder, "density", step, axis=axis, density=density.float())
        draw_density(axis.numpy(), density.numpy(), file, title)
    elif data.image is not None:
        start = data.train[:_SHOWN].to(next(model.parameters()))
        samples = _images(fitted.sample_seed(seed, start, sweeps=_SWEEPS), data)
        draw_sheet(samples, save_arrays(folder, "samples", step, samples=samples), f"samples, {title}")
        _picture_units(model, data, folder, step, title)


def _picture_units(model: Any, data: DataSet, folder: Path, step: int, title: str) -> None:
    """Reconstructions and receptive fields, of models that have hidden units with weights to the visible ones."""
    if not all(hasattr(model, name) for name in ("W", "hidden_logits", "sample_visible")):
        return
    v = data.test[: _SHOWN // 2].to(model.W)
    with torch.no_grad():
        reconstructed = model.sample_visible(model.hidden_logits(v).sigmoid(), torch.zeros_like(v))
    originals, reconstructions = _images(v, data), _images(reconstructed, data)
    file = save_arrays(folder, "reconstructions", step, originals=originals, reconstructions=reconstructions)
    rows = [
        torch.cat([row, row.new_ones(_COLUMNS - len(row), *row.shape[1:])])  # a last row that is not full ends white
        for pair in zip(originals.tensor_split(_starts(v)), reconstructions.tensor_split(_starts(v)), strict=True)
        for row in pair
    ]
    draw_sheet(torch.cat(rows), file, f"reconstructions, {title}")
    fields = _images(model.W.T, data)
    strongest = fields.flatten(1).norm(dim=1).argsort(descending=True)[:_SHOWN]
    file = save_arrays(folder, "receptive_fields", step, fields=fields)
    draw_sheet(fields[strongest], file, f"receptive fields, {title}", signed=True)


def _starts(images: Tensor) -> list[int]:
    """Where the rows of a sheet begin, but for the first."""
    return list(range(_COLUMNS, len(images), _COLUMNS))


def _images(v: Tensor, data: DataSet) -> Tensor:
    assert data.image is not None
    return v.detach().cpu().float().reshape(-1, *data.image)


def save_arrays(folder: Path, what: str, step: int, **arrays: Tensor) -> Path:
    """Writes the arrays; returns where their image belongs."""
    file = folder / f"{what}_step_{step:08d}"
    content: dict[str, Any] = {"step": step, **{name: x.numpy() for name, x in arrays.items()}}
    np.savez_compressed(file.with_suffix(".npz"), **content)
    return file.with_suffix(".png")


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def draw_density(axis: np.ndarray, density: np.ndarray, file: Path, title: str) -> None:
    """A density in the plane, on the scale from 0 to twice the data's density."""
    figure = _figure(3.2, 3.2)
    axes = figure.add_subplot()
    axes.imshow(density, origin="lower", extent=(axis[0], axis[-1], axis[0], axis[-1]), cmap="viridis", vmin=0, vmax=4)
    axes.set(title=title, xlabel="$v_1$", ylabel="$v_2$")
    figure.savefig(file)


def draw_sheet(images: Tensor, file: Path, title: str, signed: bool = False) -> None:
    """Images [n, height, width] or, in colour, [n, 3, height, width], in rows of eight.

    From 0 to 1; signed ones on one scale around 0, which is white, or grey in colour.
    """
    low, high, ground, colours = 0.0, 1.0, 1.0, "gray"
    if signed:
        high = float(images.abs().max())
        low, ground, colours = -high, 0.0, "RdBu_r"
    images = images.clamp(low, high)
    if images.ndim == 4:  # matplotlib wants channels last, from 0 to 1
        images, ground = (images.movedim(1, -1) - low) / (high - low), (ground - low) / (high - low)
    count, height, width, *channels = images.shape
    rows = -(-count // _COLUMNS)
    padded = torch.full((rows * _COLUMNS, height + 1, width + 1, *channels), ground)
    padded[:count, :height, :width] = images
    sheet = (
        padded.reshape(rows, _COLUMNS, *padded.shape[1:]).transpose(1, 2).reshape(rows * (height + 1), -1, *channels)
    )
    figure = _figure(3.2, 3.2 * sheet.shape[0] / sheet.shape[1] + 0.3)
    axes = figure.add_subplot()
    axes.imshow(sheet.numpy(), cmap=colours, vmin=low, vmax=high)
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)
    figure.savefig(file)


def draw_bias(table: pd.DataFrame, file: Path, title: str) -> None:
    """The gradient's bias against N on a logarithmic axis, a curve for each K; dotted what noise alone would show."""
    figure = _figure(4.2, 3.2)
    axes, noise = figure.add_subplot(), None
    for k, curve in table.groupby("inner_steps"):
        (line,) = axes.semilogy(curve["unroll_steps"], curve["bias"], marker="o", markersize=3, label=f"K = {k}")
        if (curve["noise_floor"] > 0).all():
            axes.semilogy(curve["unroll_steps"], curve["noise_floor"], linestyle=":", color=line.get_color())
            noise = "noise floor (dotted)"
    axes.set_xlabel("unrolled steps N")
    axes.set_ylabel("norm of the gradient's bias")
    axes.set_title(title, fontsize=8)
    axes.legend(fontsize=7, title=noise, title_fontsize=7)
    figure.savefig(file)
