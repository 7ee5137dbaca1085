"""What K, N, the size of the minibatch and the inner minibatches do to quality and cost."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.measures.ranking import WALL
from reports import off_scale, statistics, style, terms, timing
from reports.artefact import Artefact, Table, fixed
from reports.methods import of_variants
from reports.sweep import Sweep, better_is_high, selected
from reports.variants import OF_A_SEED

_K, _N, _SIZE = "param.inner_steps", "param.unroll_steps", "param.batch_size"
_MS = "ms per iteration and seed"
_LABEL = 1.8  # inches along an axis that the name of a measure has


def build(sweep: Sweep) -> Iterator[Artefact]:
    """K and N where a method has several, minibatch sizes and inner minibatches where they differ."""
    for task in sweep.tasks:
        metric, done = sweep.measures(task), sweep.of(task)
        if metric is None or _K not in done or _N not in done:
            continue
        done = done.assign(**{name: statistics.counts(done[name]) for name in (_K, _N)})
        name = terms.capital(terms.measure(metric))
        for method, group in done[done[_N].notna() & done[_K].notna()].groupby("method"):
            cells = timing.by_clock(_alike(group))
            label = next(iter(of_variants(cells).values())).label
            grid = averages(cells, metric, {_K: "K", _N: "N"})
            if len(grid) < 3:
                continue
            missing, (figure, far) = len(sweep.missing(task)), draw(grid, metric)
            yield Artefact(
                name=f"ablation-kn-{method}-{task}",
                title=f"{label}: inner steps K and unrolled steps N ({task})",
                caption=f"{name} and a seed's share of the time of an iteration of {label} against N, a curve for each "
                f"K, all else alike; mean over {terms.counted(int(grid['seeds'].max()), 'seed')} at most, with 95% "
                f"intervals (Student's t). "
                + ("What is far from the best is an arrow at the edge, and a number in the table. " if far else "")
                + f"Times: {timing.said(cells)}.{timing.machines(cells)}",
                alt=f"{name}: " + "; ".join(f"K {row['K']:g}, N {row['N']:g}: {terms.number(row['quality'])}"
                                            for row in grid.to_dict("records")) + ".",
                numbers=grid,
                runs=list(cells["run"]),
                missing=missing,
                figure=style.mark(figure, missing),
                table=_table(grid, "K", "N"),
            )  # fmt: skip
        column = "param.inner_batches"
        cells = done[done[column].notna() & done[_N].notna()] if column in done else done.head(0)
        if len(cells) and cells[column].nunique() > 1:
            grid = averages(cells, metric, {column: "inner minibatches", _N: "N"})
            yield Artefact(
                name=f"ablation-inner-{task}",
                title=f"Same or fresh minibatches for the inner steps ({task})",
                caption=f"{name} with the outer step's minibatch used in all inner steps, and with a fresh one each.",
                numbers=grid,
                runs=list(cells["run"]),
                missing=len(sweep.missing(task)),
                table=_table(grid, "N"),
            )
    sizes = sweep.cells[(sweep.cells["state"] == "done")]
    metric = next((found for found in map(sweep.measures, sweep.tasks) if found), None)
    if metric and _SIZE in sizes:
        sizes = sizes.assign(**{_SIZE: statistics.counts(sizes[_SIZE])})
        sizes = sizes[sizes[_SIZE] > 0]
    if metric and _SIZE in sizes and sizes[_SIZE].nunique() > 1:
        grid = averages(sizes, metric, {_SIZE: "minibatch"})
        missing = len(sweep.missing())
        yield Artefact(
            name="ablation-minibatch",
            title="Size of the minibatch",
            caption=f"{terms.capital(terms.measure(metric))} against the number of examples in a minibatch, at equal "
            f"numbers of iterations; mean over seeds with 95% intervals (Student's t).",
            alt="Quality: " + "; ".join(f"{row['variant']} at {row['minibatch']:g}: {terms.number(row['quality'])}"
                                        for row in grid.to_dict("records")) + ".",
            numbers=grid,
            runs=list(sizes["run"]),
            missing=missing,
            figure=style.mark(draw_sizes(grid, sizes, metric), missing),
            table=_table(grid, "minibatch"),
        )  # fmt: skip


def _alike(cells: pd.DataFrame) -> pd.DataFrame:
    """Those that differ in K, N and the seed alone: of several such sets the one with the most K and N."""
    others = [name for name in cells if str(name).startswith("param.") and name not in (_K, _N, *OF_A_SEED)]
    if not others:
        return cells
    sets = [group for _, group in cells.groupby(others, dropna=False, sort=False)]
    return max(sets, key=lambda group: len(group[[_K, _N]].drop_duplicates()))


def _table(grid: pd.DataFrame, *numbers: str) -> Table:
    formats = {_MS: fixed(grid[_MS], 3), **dict.fromkeys(numbers, "{:g}")}
    return Table(grid, formats, {"quality": "", "± 95%": ""}, grid["± 95%"])


def averages(cells: pd.DataFrame, metric: str, by: dict[str, str]) -> pd.DataFrame:
    """Means over the seeds that agree in these parameters: quality, its 95% interval, seeds and cost."""
    rows = []
    keys = [*by, "variant"] if _SIZE in by else list(by)
    for values, group in cells.groupby(keys, sort=False):
        mean, half_width = statistics.interval(selected(group, metric).dropna())
        named: dict[str, Any] = dict(zip([*by.values(), "variant"], values, strict=False))
        rows.append(
            {
                **named,
                "quality": mean,
                "± 95%": half_width,
                "seeds": len(group),
                _MS: group[WALL].mean(),
            }
        )
    return pd.DataFrame(rows).sort_values(list(named), ignore_index=True) if rows else pd.DataFrame()


def draw(grid: pd.DataFrame, metric: str) -> tuple[Figure, bool]:
    """Quality and cost against N, a curve for each K; and whether something is far off the scale of the rest."""
    scale = _scale(grid, better_is_high(metric))
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.4), layout="constrained")
        quality, cost = figure.subplots(1, 2, sharex=True)
        for k, curve in grid.groupby("K"):
            colour, marker = style.steps(int(curve["K"].iloc[0]))
            look = {"color": colour, "marker": marker, "label": f"K = {k:g}"}
            far = scale.beyond(curve["quality"]) if scale else np.zeros(len(curve), bool)
            _bars(quality, curve["N"][~far], curve[~far], look)
            if scale and far.any():
                quality.plot(curve["N"], scale.places(curve["quality"]), color=colour, zorder=1)
                quality.plot(curve["N"][far], [scale.at] * far.sum(), marker=off_scale.arrow(scale), color=colour,
                             markerfacecolor="none", linestyle="")  # fmt: skip
            cost.plot(curve["N"], curve[_MS], **look)
        quality.set(ylabel=style.in_lines(terms.measure(metric), _LABEL), xlabel="unrolled steps N")
        cost.set(ylabel=_MS, xlabel="unrolled steps N", ylim=(0, None))
        if scale:
            quality.set_ylim(scale.low, scale.high)
        quality.legend()
    return figure, scale is not None


def _scale(grid: pd.DataFrame, high: bool) -> off_scale.Axis | None:
    """The axis for those that are near the best, with their intervals, where others are far off."""
    means, half = grid["quality"], grid["± 95%"].fillna(0.0)
    rough = off_scale.axis(means, [], high)
    if rough is None or not rough.beyond(means).any():
        return None
    near = ~rough.beyond(means)
    return off_scale.axis(means[near], np.concatenate([means, (means - half)[near], (means + half)[near]]), high)


def draw_sizes(grid: pd.DataFrame, cells: pd.DataFrame, metric: str) -> Figure:
    """Quality against the size of the minibatch, a curve for each variant."""
    method = of_variants(cells)
    with style.look():
        figure = Figure(figsize=(style.COLUMN_WIDTH, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for place, (variant, curve) in enumerate(grid.groupby("variant")):
            of = method[str(variant)]
            _bars(axes, curve["minibatch"], curve, {"color": style.colour(of), "marker": style.marker(of),
                                                    "label": variant, "linestyle": style.dashes(place)})  # fmt: skip
        axes.set_xscale("log")
        sizes = sorted(set(grid["minibatch"]))
        axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="examples in a minibatch", ylabel=style.in_lines(terms.measure(metric), _LABEL))
        axes.legend()
    return figure


def _bars(axes: Any, x: pd.Series, curve: pd.DataFrame, look: dict[str, Any]) -> None:
    """Quality with its intervals, where any are known."""
    width = None if curve["± 95%"].isna().all() else curve["± 95%"].fillna(0.0)
    axes.errorbar(x, curve["quality"], yerr=width, elinewidth=0.8, capsize=1.5, **look)
