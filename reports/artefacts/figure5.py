"""Figure 5: learning curves of both levels."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from reports import statistics, style
from reports.artefact import Artefact
from reports.sweep import Sweep, natural

_LEVELS = {
    "train/objective": "higher level: training objective",
    "val/objective": "higher level: validation objective",
    "train/lower_objective": "lower level: divergence of the posterior",
    "test/posterior_fisher_divergence": "lower level: Fisher divergence of the posterior (test)",
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Of each task that a bi-level method was trained on."""
    for task in sweep.tasks:
        parts = []
        for metric in _LEVELS:
            curves = sweep.curves(task, metric)
            bilevel = curves[curves["method"].isin(style.members("Bi-level score matching"))]
            parts.append(bilevel[bilevel["step"] > 0].assign(metric=metric))
        values = pd.concat(parts)
        if values.empty:
            continue
        numbers = statistics.bands(values, ("metric", "variant"))
        missing = len(sweep.missing(task))
        yield Artefact(
            name=f"figure5-{task}",
            title=f"Figure 5: learning curves of both levels ({task})",
            caption="Objectives of the bi-level methods against iterations: mean over seeds and its 95% band. "
            "Objectives of different methods are on different scales and are not to be compared. The paper's "
            "Figure 5 shows the Fisher divergence of the posterior falling from 1e5..1e4 to 1e2..1e1 on MNIST and "
            "CIFAR-10.",
            alt="Learning curves of " + ", ".join(sorted(values["variant"].unique(), key=natural)) + ".",
            numbers=numbers,
            runs=list(values["run"].unique()),
            missing=missing,
            figure=style.mark(draw(values), missing),
        )


def draw(values: pd.DataFrame) -> Figure:
    """A row for each quantity that was measured, a column for each method: their scales have nothing in common."""
    present = [metric for metric in _LEVELS if (values["metric"] == metric).any()]
    methods = [method for method in style.methods() if (values["method"] == method).any()]
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.7 * len(present) + 0.5), layout="constrained")
        panels = figure.subplots(len(present), len(methods), sharex=True, squeeze=False)
        for row, metric in zip(panels, present, strict=True):
            row[0].set_ylabel(_LEVELS[metric].replace(": ", ":\n"), fontsize=6.5)
            for axes, method in zip(row, methods, strict=True):
                cells = values[(values["metric"] == metric) & (values["method"] == method)]
                _panel(axes, cells, style.colour(method))
        for axes in panels[-1]:
            style.thousands(axes.xaxis)
            style.legend_below(axes, 1)
        figure.supxlabel("iteration", fontsize=8)
    return figure


def _panel(axes: Any, cells: pd.DataFrame, colour: str) -> None:
    for position, variant in enumerate(sorted(cells["variant"].unique(), key=natural)):
        summary = statistics.bands(cells[cells["variant"] == variant])
        half_width = summary["half_width"].fillna(0.0)
        axes.fill_between(summary["step"], summary["mean"] - half_width, summary["mean"] + half_width, color=colour,
                          alpha=0.2, linewidth=0)  # fmt: skip
        axes.plot(summary["step"], summary["mean"], color=colour, linestyle=style.dashes(position), label=variant)
    if cells.empty:
        axes.set_axis_off()
        return
    low, high = cells["value"].quantile(0.02), cells["value"].quantile(0.98)
    if cells["value"].min() > 0 and high > 20 * low:
        axes.set_yscale("log")
    else:  # the first iterations are far from all others
        axes.set_ylim(low - 0.15 * (high - low) - 1e-9, high + 0.15 * (high - low) + 1e-9)
