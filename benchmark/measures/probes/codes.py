"""What a method's sampler makes of codes: test data reconstructed, and paths between them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.measures.density import limits
from benchmark.measures.pictures import draw_sheet, save_arrays
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import Estimator
from bism.errors import InputError
from bism.inversion import inverted, squared_error
from bism.rng import Rng, generator

_ROW = 8  # images in a row of a sheet
_PAIRS = 4
_CURVE = 65  # points of a path in the plane
_POINTS = 500  # of the data beside paths


class Codes(Probe):
    """How much of the data a method's sampler can make, of one that maps codes z to v (``protocols.Sampler``): short
    runs without their noise, generators, flows.

    ``codes/reconstruction_error`` is mean |v - decode(z)|^2 / D of test data v with D units, where z has been sought
    from where codes are drawn by the spectral gradient method (``bism.inversion``), so that it says what the method can
    find by ``steps`` steps, and not what there is; ``codes/reconstruction_error_stderr`` its standard error over v;
    ``codes/error_of_mean`` that of the training data's mean in the place of decode(z).

    Arrays, ``codes_step_*.npz``: ``originals`` and ``reconstructions``; ``paths``, decode at codes evenly on the line
    from the z of one of two test data to that of the other, ends included. Of images ``reconstructions`` stand under
    the originals and ``paths`` in rows on two sheets; of points in the plane paths are curves.

    Options:
        count: of test data, the first ones.
        steps: of the descent, each one evaluation of decode and of its gradient.
        starts: codes that each v is sought from, of which the best is taken.
        batch: of v at once.
        seed: of the codes that are begun at.
    """

    count: int = Field(64, ge=2, le=10_000)
    steps: int = Field(200, gt=0, le=100_000)
    starts: int = Field(1, gt=0, le=1000)
    batch: int = Field(64, gt=0)
    seed: int = 0

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        return None if estimator.maps_codes else "the method's samples are not made of codes, as a generator's are"

    @staticmethod
    def lacking(data: DataSet) -> str | None:
        return Probe.of_two(data)

    def measure(self, subject: Subject) -> Metrics:
        sampler: Any = subject.fitted.sampler(subject.seed)
        if not (hasattr(sampler, "codes") and hasattr(sampler, "decode")):
            raise InputError(
                f"the sampler of {subject.fitted.estimator.id} must have codes(count, rng) and decode(z), for the "
                f"method says maps_codes, got a {type(sampler).__name__}: see bism.protocols.Sampler"
            )
        v = subject.data.test[: self.count].to(next(subject.fitted.model(subject.seed).parameters()))
        codes, errors = self.sought(sampler, v, subject)
        with torch.no_grad():
            made = torch.cat([sampler.decode(z).to(v) for z in torch.split(codes, self.batch)])
            paths = self.paths(sampler, codes, _CURVE if v.shape[1:] == (2,) else _ROW).to(v)
        tries = "" if self.starts == 1 else f"the best of {self.starts} times "
        self.keep(subject, v, made, paths, f"{tries}{self.steps:,} steps")
        mean = subject.data.train.double().mean(0).to(v)
        return {
            "codes/reconstruction_error": float(errors.double().mean()),
            "codes/reconstruction_error_stderr": float(errors.double().std()) / len(errors) ** 0.5,
            "codes/error_of_mean": float(squared_error(mean, v).double().mean()),
        }

    def sought(self, sampler: Any, v: Tensor, subject: Subject) -> tuple[Tensor, Tensor]:
        """The codes of v and their errors, [n, ...] and [n]."""
        found, batches = list[tuple[Tensor, Tensor]](), torch.split(v, self.batch)
        total = len(batches) * self.starts * self.steps
        for number, batch in enumerate(batches):
            tries = list[tuple[Tensor, Tensor]]()
            for start in range(self.starts):
                done = (number * self.starts + start) * self.steps
                z = sampler.codes(len(batch), Rng(generator(self.seed, done, "codes", v.device), v.dtype))
                alive = partial(_report, subject, done, total)
                tries.append(inverted(sampler.decode, batch, z, self.steps, alive))
            found.append(_best(tries))
        codes, errors = zip(*found, strict=True)
        return torch.cat(codes), torch.cat(errors)

    @staticmethod
    def paths(sampler: Any, codes: Tensor, points: int) -> Tensor:
        """decode along the lines between the codes of the first and second, third and fourth, ...: [pairs, points,
        *visible_shape]."""
        ends = codes[: 2 * min(_PAIRS, len(codes) // 2)]
        ends = ends.reshape(-1, 2, *codes.shape[1:])
        t = torch.linspace(0, 1, points).to(codes).reshape(-1, *[1] * (codes.ndim - 1))
        lines = torch.lerp(ends[:, :1], ends[:, 1:], t)
        return torch.stack([sampler.decode(line) for line in lines])

    @staticmethod
    def keep(subject: Subject, v: Tensor, made: Tensor, paths: Tensor, sought: str) -> None:
        """Writes arrays, how codes were sought, and pictures."""
        folder, step, data = subject.folder, subject.fitted.step, subject.data
        folder.mkdir(parents=True, exist_ok=True)
        v, made, paths = (x.detach().cpu().float() for x in (v, made, paths))
        if data.image is not None:
            v, made, paths = (x.reshape(*x.shape[: x.ndim - v.ndim + 1], *_sides(data.image)) for x in (v, made, paths))
        points = {"points": data.train[:_POINTS].float()} if v.shape[1:] == (2,) else {}
        file = save_arrays(
            folder, "codes", step, originals=v, reconstructions=made, paths=paths, sought=sought, **points
        )
        if points:
            ends = [limits(values) for values in data.train.numpy().T]
            draw_paths(points["points"].numpy(), v.numpy(), made.numpy(), paths.numpy(), ends, file, f"step {step:,}")
        elif data.image is not None:
            pairs = zip(*(torch.split(x[: 4 * _ROW], _ROW) for x in (v, made)), strict=True)
            rows = torch.cat([_full(row) for pair in pairs for row in pair])
            draw_sheet(rows, file, f"test images over reconstructions, step {step:,}")
            between = file.with_name(file.name.replace("codes", "paths"))
            draw_sheet(paths.flatten(0, 1), between, f"between codes of test images, step {step:,}")


def _report(subject: Subject, done: int, total: int, step: int) -> None:
    subject.alive("codes", done + step, total)


def _best(tries: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Of several codes of each row, with their errors, the best."""
    codes, errors = (torch.stack(one) for one in zip(*tries, strict=True))
    which = errors.nan_to_num(torch.inf).argmin(0)
    rows = torch.arange(len(which), device=which.device)
    return codes[which, rows], errors[which, rows]


def _sides(image: tuple[int, ...]) -> tuple[int, ...]:
    """Of images as ``draw_sheet`` takes them: grey ones without their axis of channels."""
    return image[1:] if len(image) == 3 and image[0] == 1 else image


def _full(row: Tensor) -> Tensor:
    """A row of images, white at its end where there are too few."""
    return torch.cat([row, row.new_ones(_ROW - len(row), *row.shape[1:])])


def draw_paths(
    points: np.ndarray, v: np.ndarray, made: np.ndarray, paths: np.ndarray, ends: Sequence[tuple[float, float]],
    file: Path, title: str,
) -> None:  # fmt: skip
    """Points of the data (grey), test data and lines from them to their reconstructions (red), paths (blue)."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 3.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(points[:, 0], points[:, 1], s=1, linewidths=0, color="0.7")
    axes.add_collection(LineCollection(list(np.stack([v, made], 1)), colors="tab:red", linewidths=0.6))
    axes.scatter(v[:, 0], v[:, 1], s=3, linewidths=0, color="black")
    axes.add_collection(LineCollection(list(paths), colors="tab:blue", linewidths=1.0))
    axes.set(xlim=ends[0], ylim=ends[1], xlabel="$v_1$", ylabel="$v_2$")
    axes.set_title(f"reconstructions (red), paths between codes (blue),\n{title}", fontsize=7)
    figure.savefig(file)
