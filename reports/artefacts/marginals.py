"""Samples of models of many coordinates beside the data: each coordinate alone, and in pairs."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.measures.density import limits
from reports import style, terms
from reports.artefact import Artefact
from reports.methods import of_variants
from reports.sweep import Sweep, pictures

_SHOWN = 3  # coordinates
_ROWS = 6  # variants in one figure
_BINS = 30
_DATA = "#8c929c"


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Of each task whose samples were kept as vectors, in figures of a few variants each."""
    for task in sweep.tasks:
        arrays, runs, seed = pictures(sweep, task, "marginals")
        for part, start in enumerate(range(0, len(arrays), _ROWS)):
            names = list(arrays)[start : start + _ROWS]
            contents = {name: arrays[name] for name in names}
            first = contents[names[0]]
            missing, size = len(sweep.missing(task)), min(_SHOWN, len(first["coordinates"]))
            yield Artefact(
                name=f"marginals-{task}" + (f"-{part + 1}" if part else ""),
                title=f"Samples beside the data ({task}{f', part {part + 1}' if part else ''})",
                caption=f"The {size} coordinates in which the training data vary most, each alone (histograms) and in "
                f"pairs: {terms.counted(len(first['samples']), 'sample')} of each model (coloured; "
                f"{terms.how(contents.values())}) and {terms.counted(len(first['points']), 'point')} of the training "
                f"data (grey). {terms.capital(terms.seed_at(seed, contents.values()))}. Axes span the data's range and "
                "a quarter of it on either side; where samples lie beyond it, their share is written.",
                alt=f"Marginal histograms and scatter plots of samples of {', '.join(names)} beside the data.",
                numbers=_numbers(contents),
                runs=[run for run, variant in zip(runs, arrays, strict=True) if variant in contents],
                missing=missing,
                figure=style.mark(draw(contents, _colours(sweep, task)), missing),
                arrays={"coordinates": first["coordinates"], "points": first["points"]}
                | {name: content["samples"] for name, content in contents.items()},
            )


def _colours(sweep: Sweep, task: str) -> dict[str, str]:
    return {variant: look.colour for variant, look in style.looks(of_variants(sweep.of(task, None))).items()}


def _numbers(contents: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Mean and standard deviation of every coordinate that was kept, of the data and of each variant."""
    first = next(iter(contents.values()))
    rows = []
    for name, values in {"data": first["points"], **{k: content["samples"] for k, content in contents.items()}}.items():
        for place, coordinate in enumerate(first["coordinates"]):
            rows.append({"variant": name, "coordinate": int(coordinate) + 1, "mean": values[:, place].mean(),
                         "standard deviation": values[:, place].std(ddof=1)})  # fmt: skip
    return pd.DataFrame(rows)


def draw(contents: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str]) -> Figure:
    """A row for each variant; histograms of the coordinates, then their pairs."""
    first = next(iter(contents.values()))
    points, names = first["points"], [f"v{_low(int(place) + 1)}" for place in first["coordinates"][:_SHOWN]]
    pairs = list(itertools.combinations(range(len(names)), 2))
    columns, ends = len(names) + len(pairs), [limits(values) for values in points.T]
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.15 * len(contents) + 0.5), layout="constrained")
        grid = figure.subplots(len(contents), columns, squeeze=False, sharex="col")
        for row, (variant, content) in zip(grid, contents.items(), strict=True):
            samples, colour = content["samples"], colours[variant]
            for place, axes in enumerate(row[: len(names)]):
                _alone(axes, points[:, place], samples[:, place], ends[place], colour)
            for pair, axes in zip(pairs, row[len(names) :], strict=True):
                _together(axes, points[:, pair], samples[:, pair], [ends[place] for place in pair], colour)
            row[0].set_ylabel(style.in_lines(variant, 1.0), fontsize=style.PANEL)
        for axes, name in zip(grid[0], names, strict=False):
            axes.set_title(name)
        for axes, (one, other) in zip(grid[0][len(names) :], pairs, strict=True):
            axes.set_title(f"{names[other]} against {names[one]}")
    return figure


def _low(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _alone(axes: Axes, points: np.ndarray, samples: np.ndarray, ends: tuple[float, float], colour: str) -> None:
    bins = np.linspace(*ends, _BINS).tolist()
    axes.hist(points, bins=bins, weights=np.full(len(points), 1 / len(points)), color=_DATA, alpha=0.5)
    axes.hist(samples, bins=bins, weights=np.full(len(samples), 1 / len(samples)), color=colour, histtype="step")
    axes.set_xlim(*ends)
    axes.set_yticks([])
    axes.tick_params(labelsize=6)


def _together(
    axes: Axes, points: np.ndarray, samples: np.ndarray, ends: list[tuple[float, float]], colour: str
) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=1.5, linewidths=0, color=_DATA, rasterized=True)
    axes.scatter(samples[:, 0], samples[:, 1], s=1.5, linewidths=0, color=colour, rasterized=True)
    axes.set(xlim=ends[0], ylim=ends[1])
    axes.tick_params(labelsize=6)
    low, high = np.transpose(ends)
    outside = 1 - float(((samples >= low) & (samples <= high)).all(axis=1).mean())
    if outside > 0.01:
        axes.text(
            0.5, 0.03, f"{outside:.0%} outside", transform=axes.transAxes, fontsize=6, color=style.ALARM, ha="center"
        )
