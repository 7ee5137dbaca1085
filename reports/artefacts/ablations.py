"""What K, N, the size of the minibatch and the inner minibatches do to quality and cost."""

import math
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import statistics, style
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, selected

_K, _N = "param.inner_steps", "param.unroll_steps"
_FORMATS = {"quality": "{:.3f}", "± 95%": "{:.3f}", "ms per iteration and seed": "{:.4g}"}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """K and N where a method has several, minibatch sizes and inner minibatches where they differ."""
    for task in sweep.tasks:
        metric, done = sweep.measures(task), sweep.of(task)
        if metric is None or _K not in done or _N not in done:
            continue
        for method, cells in done[done[_N].notna() & done[_K].notna()].groupby("method"):
            grid = averages(cells, metric, {_K: "K", _N: "N"})
            if len(grid) < 3:
                continue
            missing = len(sweep.missing(task))
            yield Artefact(
                name=f"ablation-kn-{method}-{task}",
                title=f"{method}: inner steps K and unrolled steps N ({task})",
                caption=f"{metric} and time per iteration of {method} against N, a curve for each K; mean over seeds.",
                alt="Quality and cost: "
                + "; ".join(f"K {row.K:g}, N {row.N:g}: {row.quality:.4g}" for row in grid.itertuples()) + ".",
                numbers=grid,
                runs=list(cells["run"]),
                missing=missing,
                figure=style.mark(draw(grid, metric), missing),
                table=Table(grid, {**_FORMATS, "K": "{:g}", "N": "{:g}"}),
            )  # fmt: skip
        column = "param.inner_batches"
        if column in done and done[column].nunique() > 1:
            cells = done[done[column].notna()]
            grid = averages(cells, metric, {column: "inner minibatches", _N: "N"})
            yield Artefact(
                name=f"ablation-inner-{task}",
                title=f"Same or fresh minibatches for the inner steps ({task})",
                caption=f"{metric} with the outer step's minibatch used in all inner steps, and with a fresh one each.",
                numbers=grid,
                runs=list(cells["run"]),
                missing=len(sweep.missing(task)),
                table=Table(grid, {**_FORMATS, "N": "{:g}"}),
            )
    sizes = sweep.cells[(sweep.cells["state"] == "done")]
    metric = next((found for found in map(sweep.measures, sweep.tasks) if found), None)
    if metric and "param.batch_size" in sizes and sizes["param.batch_size"].nunique() > 1:
        grid = averages(sizes, metric, {"param.batch_size": "minibatch"})
        missing = len(sweep.missing())
        yield Artefact(
            name="ablation-minibatch",
            title="Size of the minibatch",
            caption=f"{metric} against the number of examples in a minibatch, at equal numbers of iterations.",
            alt="Quality: " + "; ".join(f"{row.variant} at {row.minibatch:g}: {row.quality:.4g}"
                                        for row in grid.itertuples()) + ".",
            numbers=grid,
            runs=list(sizes["run"]),
            missing=missing,
            figure=style.mark(draw_sizes(grid, sizes, metric), missing),
            table=Table(grid, {**_FORMATS, "minibatch": "{:g}"}),
        )  # fmt: skip


def averages(cells: pd.DataFrame, metric: str, by: dict[str, str]) -> pd.DataFrame:
    """Means over the seeds that agree in these parameters: quality, its 95% interval, seeds and cost."""
    rows = []
    keys = [*by, "variant"] if "param.batch_size" in by else list(by)
    for values, group in cells.groupby(keys, sort=False):
        mean, half_width = statistics.interval(selected(group, metric).dropna())
        named: dict[str, Any] = dict(zip([*by.values(), "variant"], values, strict=False))
        rows.append(
            {
                **{name: _number(value) for name, value in named.items()},
                "quality": mean,
                "± 95%": half_width,
                "seeds": len(group),
                "ms per iteration and seed": group["time/ms_per_step"].mean(),
            }
        )
    return pd.DataFrame(rows).sort_values(list(named), ignore_index=True) if rows else pd.DataFrame()


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def draw(grid: pd.DataFrame, metric: str) -> Figure:
    """Quality and cost against N, a curve for each K."""
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.4), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True)
        shades = mpl.colormaps["plasma"](np.linspace(0.15, 0.75, grid["K"].nunique()))
        for axes, column, label in zip(panels, ("quality", "ms per iteration and seed"), (metric, "ms per iteration"),
                                       strict=True):  # fmt: skip
            for shade, (k, curve) in zip(shades, grid.groupby("K"), strict=True):
                axes.plot(curve["N"], curve[column], marker="o", color=shade, label=f"K = {k:g}")
            axes.set(ylabel=label, xlabel="unrolled steps N")
        panels[1].set_ylim(bottom=0)
        panels[0].legend()
    return figure


def draw_sizes(grid: pd.DataFrame, cells: pd.DataFrame, metric: str) -> Figure:
    """Quality against the size of the minibatch, a curve for each variant."""
    method = dict(zip(cells["variant"], cells["method"], strict=True))
    with style.look():
        figure = Figure(figsize=(style.COLUMN_WIDTH, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for variant, curve in grid.groupby("variant"):
            name = method[str(variant)]
            width = curve["± 95%"].fillna(0.0) if not curve["± 95%"].isna().all() else math.nan
            axes.errorbar(curve["minibatch"], curve["quality"], yerr=width, color=style.colour(name),
                          marker=style.marker(name), label=variant)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set(xlabel="minibatch", ylabel=metric)
        axes.legend()
    return figure
