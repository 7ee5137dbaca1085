"""What a trained model looks like, as arrays (``.npz``, which reports redraw) and as images.

Of one or two coordinates: its density, beside points of the data. Of images: samples, test images above their
reconstructions, and the receptive fields, which are the columns of W. Of all else, where v is real: samples
beside points of the data, in the coordinates that vary most.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.measures.density import limits, usual
from bism.fitted import Fitted
from bism.latent_quadrature import not_summable
from bism.likelihood import grid_density, not_exact
from bism.sampling import LangevinChains
from bism.variables import has_binary_v

_GRID = {1: 401, 2: 201}  # values of a coordinate that densities are drawn at, by the number of coordinates
_POINTS = 2000  # of the data, beside a density
_CHAINS, _COORDINATES = 500, 8  # samples, and coordinates of them, that are kept of data that are no images
_SHOWN = 64  # samples, and receptive fields
_COLUMNS = 8
_SWEEPS = 500
_TITLE = 30  # letters in a line above a density


def can_picture(data: DataSet, fitted: Fitted) -> bool:
    """Whether there is something to show: a density of one or two coordinates, or samples that are drawn quickly; by
    Langevin dynamics they are drawn by a probe."""
    model, sampler = fitted.model(fitted.seeds[0]), fitted.sampler(fitted.seeds[0])
    flat = len(data.train.shape) == 2 and not has_binary_v(model)
    quick = sampler is not None and not isinstance(sampler, LangevinChains)
    return _has_density(data, model) or (quick and (flat or data.image is not None))


def _has_density(data: DataSet, model: Any) -> bool:
    at_each = not_summable(model) is None  # the sums over h are too many for a grid
    return data.train.shape[1:] in ((1,), (2,)) and not has_binary_v(model) and not_exact(model) is None and not at_each


def picture(fitted: Fitted, seed: int, data: DataSet, folder: Path, title: str) -> None:
    """Writes everything there is to show of one seed at this step."""
    folder.mkdir(parents=True, exist_ok=True)
    model, step = fitted.model(seed), fitted.step
    if _has_density(data, model):
        _picture_density(model.cpu(), data, folder, step, title)
    elif data.image is None:
        _picture_marginals(fitted, seed, data, folder, title)
    else:
        drawn, how = _samples(fitted, seed, data, _SHOWN)
        samples = _images(drawn, data)
        draw_sheet(samples, save_arrays(folder, "samples", step, how=how, samples=samples), f"samples, {title}")
        posterior = fitted.posterior(seed) if "posterior" in fitted.estimator.trains else None
        _picture_units(model, posterior, data, folder, step, title)


def _samples(fitted: Fitted, seed: int, data: DataSet, count: int) -> tuple[Tensor, str]:
    """Samples, of chains those from training data, and how they were drawn."""
    rows = data.train[:count].to(next(fitted.model(seed).parameters()))
    how = how_drawn(fitted.sampler(seed, sweeps=_SWEEPS))
    return fitted.draw(len(rows), seed, rows=rows, sweeps=_SWEEPS), how


def how_drawn(sampler: Any) -> str:
    """How a sampler's samples are drawn, for captions."""
    return str(getattr(sampler, "how", "draws of the method's own sampler"))


def _picture_density(model: Any, data: DataSet, folder: Path, step: int, title: str) -> None:
    """The density on the range of the training data, in each coordinate."""
    ends = [limits(values) for values in data.train.numpy().T]
    axes = [torch.linspace(*between, _GRID[len(ends)], dtype=torch.float64) for between in ends]
    density, points = grid_density(model, *axes), data.train[:_POINTS].float()
    named = dict(zip(("first", "second"), axes, strict=False))
    file = save_arrays(folder, "density", step, **named, density=density.float(), points=points)
    draw_density([axis.numpy() for axis in axes], density.numpy(), points.numpy(), file, title)


def _picture_marginals(fitted: Fitted, seed: int, data: DataSet, folder: Path, title: str) -> None:
    """Samples beside points of the data, in those coordinates in which the training data vary most."""
    coordinates = data.train.var(dim=0).argsort(descending=True)[:_COORDINATES]
    drawn, how = _samples(fitted, seed, data, _CHAINS)
    samples, points = drawn.cpu().float()[:, coordinates], data.train[:_CHAINS, coordinates].float()
    file = save_arrays(
        folder, "marginals", fitted.step, how=how, coordinates=coordinates, points=points, samples=samples
    )
    draw_marginals(points.numpy(), samples.numpy(), coordinates.numpy(), file, title)


def _picture_units(model: Any, posterior: Any, data: DataSet, folder: Path, step: int, title: str) -> None:
    """Reconstructions and receptive fields, of models that have hidden units with weights to the visible ones."""
    if not hasattr(model, "W") or not (hasattr(model, "reconstruct") or _has_units(model)):
        return
    v = data.test[: _SHOWN // 2].to(model.W)
    with torch.no_grad():
        reconstructed = _reconstructed(model, posterior, v)
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


def _reconstructed(model: Any, posterior: Any, v: Tensor) -> Tensor:
    """The mean of v given the means of h given v."""
    if hasattr(model, "reconstruct"):
        return model.reconstruct(v, posterior)
    h = model.hidden_logits(v).sigmoid()
    # Of real v the mean is the sample without noise.
    return model.visible_mean(h) if hasattr(model, "visible_mean") else model.sample_visible(h, torch.zeros_like(v))


def _has_units(model: Any) -> bool:
    return hasattr(model, "hidden_logits") and hasattr(model, "sample_visible")


def _starts(images: Tensor) -> list[int]:
    """Where the rows of a sheet begin, but for the first."""
    return list(range(_COLUMNS, len(images), _COLUMNS))


def _images(v: Tensor, data: DataSet) -> Tensor:
    assert data.image is not None
    return v.detach().cpu().float().reshape(-1, *data.image)


def save_arrays(folder: Path, what: str, step: int, **arrays: Tensor | str) -> Path:
    """Writes the arrays, and words such as how samples were drawn; returns where their image belongs."""
    file = folder / f"{what}_step_{step:08d}"
    given = {name: np.array(x) if isinstance(x, str) else x.numpy() for name, x in arrays.items()}
    content: dict[str, Any] = {"step": step, **given}
    np.savez_compressed(file.with_suffix(".npz"), **content)
    return file.with_suffix(".png")


def _figure(width: float, height: float, margins: dict[str, float] | None = None) -> Any:
    """A figure; without ``margins`` they are found by drawing it twice, which is most of the time of small ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout=None if margins else "constrained")
    if margins:
        figure.subplots_adjust(**margins)
    return figure


def draw_density(axes: Sequence[np.ndarray], density: np.ndarray, points: np.ndarray, file: Path, title: str) -> None:
    """A density of one coordinate over the data's histogram; of two beside points of the data, on the scale from 0 to
    twice the density that half of the data lie above."""
    if len(axes) == 1:
        figure = _figure(3.6, 2.6)
        panel = figure.add_subplot()
        heights, _, _ = panel.hist(points[:, 0], bins=50, density=True, color="0.8", label="data")
        panel.plot(axes[0], density, label="model")
        panel.set(xlabel="$v_1$", ylabel="density", title=title, ylim=(0, 2 * heights.max()))
        panel.legend(loc="upper right")  # looking for the best place takes long where there are many data
    else:
        extent = (axes[0][0], axes[0][-1], axes[1][0], axes[1][-1])
        figure = _figure(5.6, 3.0)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        panels[0].scatter(*points.T, s=1, linewidths=0, color="black")
        panels[1].imshow(density, origin="lower", extent=extent, cmap="viridis", vmin=0, vmax=2 * usual(points),
                         aspect="auto")  # fmt: skip
        for panel, name in zip(panels, ("data", title), strict=True):
            panel.set(xlabel="$v_1$", xlim=extent[:2], ylim=extent[2:])
            panel.set_title(textwrap.fill(name, _TITLE), fontsize=9)
        panels[0].set_ylabel("$v_2$")
    figure.savefig(file)


def draw_marginals(
    points: np.ndarray, samples: np.ndarray, coordinates: np.ndarray, file: Path, title: str, shown: int = 4
) -> None:
    """Every pair of the first coordinates: points of the data (grey) and samples (blue)."""
    count = min(shown, len(coordinates))
    figure = _figure(1.4 * count + 0.4, 1.4 * count + 0.4)
    ends = [limits(values) for values in points.T]
    for (row, column), panel in np.ndenumerate(figure.subplots(count, count, squeeze=False)):
        panel.set_xlim(*ends[column])
        if row == column:
            bins = np.linspace(*ends[row], 30)
            for values, colour in ((points, "0.7"), (samples, "tab:blue")):
                panel.hist(values[:, row], bins=bins, density=True, color=colour, histtype="step")
        else:
            for values, colour in ((points, "0.7"), (samples, "tab:blue")):
                panel.scatter(values[:, column], values[:, row], s=1, linewidths=0, color=colour)
            panel.set_ylim(*ends[row])
        panel.tick_params(labelsize=5)
        if row == count - 1:
            panel.set_xlabel(f"$v_{{{coordinates[column] + 1}}}$")
        if column == 0:
            panel.set_ylabel(f"$v_{{{coordinates[row] + 1}}}$")
    figure.suptitle(f"data (grey) and samples (blue), {title}", fontsize=8)
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
    high_as = 3.2 * sheet.shape[0] / sheet.shape[1]
    edge = {"left": 0.02, "right": 0.98, "bottom": 0.02}
    figure = _figure(3.2, high_as + 0.3, {**edge, "top": high_as / (high_as + 0.3)})
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
