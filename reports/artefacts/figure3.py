"""Figure 3: test log-likelihood against iterations, and against training time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.records.metrics import RANKED
from reports import paper, statistics, style, terms, timing
from reports.artefact import Artefact
from reports.labels import label_ends
from reports.methods import Method, families, of_variants
from reports.style import Look, natural
from reports.sweep import Sweep, better_is_high, selected

_RASTER_POINTS = 20_000  # beyond which the seeds behind the means are drawn as dots, not vectors
_MEASURES = sorted(RANKED, key=lambda metric: metric.of_samples)  # what is measured often before what is not
_LEGEND = 0.3  # inches of a legend that a panel's height has room for
_LABEL = 1.3  # inches along an axis that the name of a measure has
_LEADING = 8  # variants at most, and half of all, that a panel of their own shows


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Learning curves of each task whose measure was taken along the training, against iterations and time."""
    for task in sweep.tasks:
        metric = measured_often(sweep, task)
        if metric is None:
            continue
        curves, high = sweep.curves(task, metric), better_is_high(metric)
        numbers, missing = statistics.bands(curves), len(sweep.missing(task))
        name, runs, seeds = terms.measure(metric), list(curves["run"].unique()), curves["seed"].nunique()
        behind = "; all seeds faint behind" if seeds > 1 else ""
        beyond = (f" Curves that begin {'below' if high else 'above'} the panels enter them later; a variant that ends "
                  f"{'below' if high else 'above'} them is named with its last mean.")  # fmt: skip
        done, method = sweep.of(task), of_variants(sweep.of(task, None))
        beyond += terms.below_zero(metric, numbers["mean"], numbers["half_width"]) + style.whose(method)
        leading = _leading(done[done["variant"].isin(curves["variant"])], metric, high)
        yield Artefact(
            name=f"figure3-{task}",
            title=paper.title(3, sweep.suite, task, f"{name} against iterations"),
            caption=f"{terms.capital(name)} on {task}: {terms.mean_of(curves)}{behind}.{beyond}"
            + (f" Last panel: the {len(leading)} variants that end best by the ranking's rule, with their means alone."
               if leading else "")
            + (" Figure 3 of the paper has the same axes; it prints no numbers."
               if paper.has(3, sweep.suite, task) else ""),
            alt=_in_words(numbers, name),
            numbers=numbers.merge(_seeds(curves, ["value"]), on=["variant", "step"]),
            runs=runs,
            missing=missing,
            figure=style.mark(draw(curves, method, name, "iteration", high, leading=leading), missing),
        )  # fmt: skip
        timed = on_a_clock(sweep, task, curves)
        if not timed.empty:
            yield Artefact(
                name=f"convergence-{task}",
                title=f"{terms.capital(name)} against training time ({task})",
                caption=f"The same curves against the time that a seed took on the training clock (compiling, "
                f"evaluation and logging excluded; seeds that train side by side share it): {terms.mean_of(curves)} "
                f"at the mean time{behind}, at their own.{beyond}{timing.machines(done)}",
                alt=_in_words(numbers, name),
                numbers=_means(timed),
                runs=runs,
                missing=missing,
                figure=style.mark(draw(timed, method, name, "seconds of training per seed", high, time=True), missing),
            )


def measured_often(sweep: Sweep, task: str) -> str | None:
    """The measure of a task that has a history: one that is taken of single checkpoints alone makes no curve."""
    for metric in (f"test/{measure.name}" for measure in _MEASURES):
        curves = sweep.curves(task, metric).dropna(subset=["value"])
        if curves.groupby("run")["step"].nunique().max() > 2:
            return metric
    return None


def on_a_clock(sweep: Sweep, task: str, curves: pd.DataFrame) -> pd.DataFrame:
    """The curves with the training clock of their own run, in seconds, beside each step."""
    clock = sweep.curves(task, "time/train_seconds")[["run", "step", "value"]].rename(columns={"value": "seconds"})
    return curves.merge(clock, on=["run", "step"])


def _means(timed: pd.DataFrame) -> pd.DataFrame:
    seconds = timed.groupby(["variant", "step"])["seconds"].mean().reset_index()
    numbers = seconds.merge(statistics.bands(timed), on=["variant", "step"])
    return numbers.merge(_seeds(timed, ["value", "seconds"]), on=["variant", "step"])


def _seeds(curves: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """variant, step, and for every seed its value and what else is named."""
    wide = curves.pivot(index=["variant", "step"], columns="seed", values=list(names))
    found, seeds = wide.columns.get_level_values(0), wide.columns.get_level_values(1)
    wide.columns = pd.Index(
        [f"seed {seed}" + (f" {name}" if name != "value" else "") for name, seed in zip(found, seeds, strict=True)]
    )
    return wide.reset_index()


def _in_words(numbers: pd.DataFrame, name: str) -> str:
    last = numbers.sort_values("step").groupby("variant").last()["mean"].sort_values(ascending=False)
    return f"Curves of {name}; at the end: " + ", ".join(f"{key} {terms.number(x)}" for key, x in last.items()) + "."


def _leading(done: pd.DataFrame, metric: str, high: bool) -> list[str]:
    """The variants that end best, where there are others: the first of the ranking."""
    values = selected(done, metric).replace([math.inf, -math.inf], math.nan)
    best = values.groupby(done["variant"]).mean().dropna().sort_values(ascending=not high)
    return list(best.index[: min(_LEADING, len(best) // 2)]) if len(best) > 3 else []


def _ends(curves: pd.DataFrame) -> pd.Series:
    return curves.sort_values("step").groupby(["variant", "seed"])["value"].last().groupby("variant").mean()


def draw(
    curves: pd.DataFrame, method: Mapping[str, Method], name: str, along: str, high: bool, *, time: bool = False,
    leading: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """Learning curves in one panel per family of methods: all seeds faint, mean and 95% band in front.

    Args:
        curves: tidy frame with method, variant, seed, step, value, and seconds if ``time``.
        method: of every variant of the task.
        leading: variants that a panel of their own shows on their own range.
    """
    family = curves["variant"].map({variant: of.family for variant, of in method.items()})
    present = families(method[variant] for variant in curves["variant"].unique())
    columns = 3 if len(present) == 3 and not leading else min(2, len(present))
    rows = math.ceil(len(present) / columns)
    beside = bool(leading) and len(present) % 2 == 1 and columns > 1  # a place of the grid is free
    abreast = {1: 4, 2: 2, 3: 1}[columns]
    of_family = [sorted(curves["variant"][family == title].unique()) for title in present]
    limits = _limits(curves, high)
    labels = _labels(curves, *limits)
    legends = [
        style.legend_height([labels[name] for name in names], style.TEXT_WIDTH / columns, abreast)
        for names in of_family
    ]
    below = sum(max(0.0, max(legends[place : place + columns]) - _LEGEND) for place in range(0, len(present), columns))
    heights = [2.15 * rows + 0.2 + below, *([1.9] if leading and not beside else [])]
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        grid = parts[0].add_gridspec(rows, columns)
        panels = _panels(parts[0], grid, len(present), columns)
        panels[0].set_ylim(*limits)
        looks = style.looks(method)
        if leading:
            front = parts[0].add_subplot(grid[-1, -1]) if beside else parts[1].subplots()
            _front(front, curves[curves["variant"].isin(leading)], looks, name)
        if time:
            curves = curves[curves["seconds"] > 0]
            family = family[curves.index]
            panels[0].set_xscale("log")
            panels[0].set_xlim(curves["seconds"].quantile(0.01) / 2, curves["seconds"].max() * 1.2)
            style.plain(panels[0].xaxis)
        for axes, title in zip(panels, present, strict=False):
            beyond = _panel(axes, curves[family == title], looks, labels, time)
            axes.set(title=title, xlabel=along)
            axes.tick_params(labelbottom=True)
            style.legend_below(axes, abreast, beyond)
        for axes in panels[::columns]:
            axes.set_ylabel(style.in_lines(name, _LABEL))
    return figure


def _panels(figure: Any, grid: Any, count: int, columns: int) -> list[Any]:
    """Panels of one size on the same axes, in rows."""
    found = list[Any]()
    for place in range(count):
        row, column = divmod(place, columns)
        shared = {"sharex": found[0], "sharey": found[0]} if found else {}
        found.append(figure.add_subplot(grid[row, column], **shared))
        found[-1].tick_params(labelleft=column == 0)
    return found


def _limits(curves: pd.DataFrame, high: bool) -> tuple[float, float]:
    """From the best final mean to some way beyond the median one: a variant far off would flatten all others."""
    ends = _ends(curves)
    best, middle = (ends.max(), ends.median()) if high else (ends.min(), ends.median())
    start = curves.sort_values("step").groupby(["variant", "seed"])["value"].first().median()
    spread = max(abs(best - middle) * 3, abs(best - start) * 0.6, 1e-9 + abs(best) * 0.05)
    top = max(best, start) if high else min(best, start)  # all may end worse than they began
    return (best - spread, top + 0.06 * spread) if high else (top - 0.06 * spread, best + spread)


def _labels(curves: pd.DataFrame, low: float, high: float) -> dict[str, str]:
    """Of each variant its name in a legend, with where its mean ends if that is outside the panel."""
    ends = statistics.bands(curves).sort_values("step").groupby("variant")["mean"].last()
    return {
        str(variant): str(variant) if low <= end <= high else f"{variant} (to {terms.number(float(end))})"
        for variant, end in ends.items()
    }


def _panel(
    axes: Any, curves: pd.DataFrame, looks: Mapping[str, Look], labels: Mapping[str, str], time: bool
) -> list[str]:
    """Draws the curves; returns those that end outside, the farthest first, with where they end."""
    beyond = list[tuple[float, str]]()
    low, high = axes.get_ylim()
    if len(curves) > _RASTER_POINTS:
        axes.set_rasterization_zorder(1.5)
    summaries = statistics.bands(curves).groupby(["variant"])
    by_variant = {str(variant): cells for variant, cells in curves.groupby("variant")}
    for variant in sorted(by_variant, key=natural):
        cells, look = by_variant[variant], looks[variant]
        faint = _apart(cells, ["seconds" if time else "step", "value"])
        axes.plot(
            *faint, color=look.colour, alpha=0.14, linewidth=0.5, zorder=1, gid=f"_{variant}"
        )  # all seeds, apart at the NaNs
        summary = summaries.get_group((variant,))
        x = cells.groupby("step")["seconds"].mean().to_numpy() if time else summary["step"].to_numpy()
        half_width = summary["half_width"].fillna(0.0)
        axes.fill_between(x, summary["mean"] - half_width, summary["mean"] + half_width, color=look.colour,
                          alpha=0.2, linewidth=0, gid=f"_{variant}")  # fmt: skip
        end = float(summary["mean"].iloc[-1])
        if not low <= end <= high:
            beyond.append((max(low - end, end - high), labels[variant]))
        every = max(1, len(x) // 6)
        axes.plot(x, summary["mean"], **look.line, label=labels[variant], gid=variant, markevery=(every // 2, every))
    if not time:
        style.thousands(axes.xaxis)
    return [label for _, label in sorted(beyond, reverse=True)]


def _front(axes: Any, curves: pd.DataFrame, looks: Mapping[str, Look], name: str) -> None:
    """Mean curves of few variants on the range of their last quarter, each named at its end."""
    means = curves.groupby(["variant", "step"])["value"].mean().reset_index()
    late = means[means["step"] >= 0.75 * means["step"].max()]["value"]
    pad = 0.08 * float(np.ptp(late)) + 1e-9
    axes.set_ylim(late.min() - pad, late.max() + pad)
    lines = []
    for place, (variant, curve) in enumerate(means.groupby("variant")):
        look, every = looks[str(variant)], max(1, len(curve) // 6)
        marked = (place * every // _LEADING, every)
        axes.plot(curve["step"], curve["value"], **look.line, gid=str(variant), markevery=marked)
        lines.append((str(variant), curve["step"].iloc[-1], curve["value"].iloc[-1], look.colour))
    axes.set(title="The variants that end best", xlabel="iteration", ylabel=style.in_lines(name, _LABEL))
    axes.margins(x=0.02)
    style.thousands(axes.xaxis)
    label_ends(axes, lines)


def _apart(cells: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Quantities of all seeds in a row each, NaN between two seeds, where a line ends."""
    ordered = cells.sort_values(["seed", "step"])
    ends = np.flatnonzero(np.diff(ordered["seed"])) + 1
    return np.insert(ordered[names].to_numpy(dtype=float), ends, np.nan, axis=0).T
