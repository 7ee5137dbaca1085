"""What a task measures on the models as they are, and the pictures it keeps."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.datasets import DataSet
from bism.fitted import Fitted
from bism.likelihood import fisher_divergence, grid_density, log_likelihood, log_partition

_GRID = (-0.25, 1.25, 201)  # the square that densities are drawn on
_PICTURED_SAMPLES = 64


def evaluate(fitted: Fitted, data: DataSet, metrics: list[str]) -> list[dict[str, float]]:
    """For each seed the task's metrics on the validation and the test data, means per example."""
    return [_of_model(fitted.model(seed), data, metrics) for seed in fitted.seeds]


def _of_model(model: Any, data: DataSet, metrics: list[str]) -> dict[str, float]:
    splits = {"val": data.val, "test": data.test}
    parameter = next(model.parameters())
    moved = {name: split.to(parameter) for name, split in splits.items()}
    values: dict[str, float] = {}
    if "log_likelihood" in metrics:
        log_z = log_partition(model) if all(p.isfinite().all() for p in model.parameters()) else math.nan
        values |= {f"{name}/log_likelihood": float(log_likelihood(model, v, log_z).mean()) for name, v in moved.items()}
    if "fisher_divergence" in metrics:
        values |= {f"{name}/fisher_divergence": float(fisher_divergence(model, v).mean()) for name, v in moved.items()}
    return values


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Evenly spaced steps from 0 to the last, both included."""
    return sorted({round(i * steps / evaluations) for i in range(evaluations + 1)})


def picture_steps(steps: int, evaluations: int) -> set[int]:
    """Five of the evaluation steps, evenly spaced from step 0 on, and the last."""
    at = evaluation_steps(steps, evaluations)
    return {at[round(i * (len(at) - 1) / 5)] for i in range(6)}


def can_picture(data: DataSet, fitted: Fitted) -> bool:
    """Whether there is something to show: a density in the plane, or vectors that are images."""
    return data.train.shape[1:] == (2,) or data.image is not None


def picture(fitted: Fitted, seed: int, data: DataSet, folder: Path, title: str) -> None:
    """Writes the density (two visible units) or a sheet of samples (images), as arrays and as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    if data.train.shape[1:] == (2,):
        axis, density = grid_density(fitted.model(seed).cpu(), *_GRID)
        file = folder / f"density_step_{fitted.step:08d}"
        np.savez_compressed(
            file.with_suffix(".npz"), axis=axis.numpy(), density=density.numpy().astype(np.float32), step=fitted.step
        )
        draw_density(axis.numpy(), density.numpy(), file.with_suffix(".png"), title)
    elif data.image is not None:
        start = data.train[:_PICTURED_SAMPLES].to(next(fitted.model(seed).parameters()))
        samples = fitted.sample_seed(seed, start, sweeps=500).cpu().reshape(-1, *data.image)
        file = folder / f"samples_step_{fitted.step:08d}"
        np.savez_compressed(file.with_suffix(".npz"), samples=samples.numpy().astype(np.float32), step=fitted.step)
        draw_samples(samples, file.with_suffix(".png"), title)


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


def draw_samples(samples: torch.Tensor, file: Path, title: str) -> None:
    """Images [n, height, width] or, in colour, [n, 3, height, width], in a sheet of eight columns."""
    images = samples.clamp(0, 1)
    if images.ndim == 4:
        images = images.movedim(1, -1)
    rows, (height, width, *colours) = -(-len(images) // 8), images.shape[1:]
    padded = torch.ones(rows * 8, height + 1, width + 1, *colours)
    padded[: len(images), :height, :width] = images
    sheet = padded.reshape(rows, 8, *padded.shape[1:]).transpose(1, 2).reshape(rows * (height + 1), -1, *colours)
    figure = _figure(3.2, 3.2 * sheet.shape[0] / sheet.shape[1] + 0.3)
    axes = figure.add_subplot()
    axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(title)
    figure.savefig(file)
