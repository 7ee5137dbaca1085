"""Figure 3: test log-likelihood against iterations, and against training time."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import statistics, style
from reports.artefact import Artefact
from reports.sweep import Sweep, better_is_high, natural

_RASTER_POINTS = 20_000  # beyond which the seeds behind the means are drawn as dots, not vectors
_NAMES = {"test/log_likelihood": "test log-likelihood (nats)", "test/fisher_divergence": "test Fisher divergence",
          "test/fid": "FID"}  # fmt: skip


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Learning curves of each task whose measure was taken along the training, against iterations and time."""
    for task in sweep.tasks:
        metric = measured_often(sweep, task)
        if metric is None:
            continue
        curves = sweep.curves(task, metric)
        numbers = statistics.bands(curves)
        missing, name, runs = len(sweep.missing(task)), _NAMES[metric], list(curves["run"].unique())
        paper = (
            "Figure 3 of the paper has the same axes; it prints no numbers." if metric.endswith("likelihood") else ""
        )
        seeds = f"{curves['seed'].nunique()} seeds"
        yield Artefact(
            name=f"figure3-{task}",
            title=f"Figure 3: {name} against iterations ({task})",
            caption=f"{_capital(name)} on {task}: mean over {seeds} and its 95% band (Student's t), all seeds faint "
            f"behind. A variant that ends below the panel is named with its last mean. {paper}",
            alt=_in_words(numbers, name),
            numbers=numbers,
            runs=runs,
            missing=missing,
            figure=style.mark(draw(curves, name, "iteration", better_is_high(metric)), missing),
        )
        timed = on_a_clock(sweep, task, curves)
        if not timed.empty:
            yield Artefact(
                name=f"convergence-{task}",
                title=f"{_capital(name)} against training time ({task})",
                caption=f"The same curves against the time that a seed took on the training clock (compiling, "
                f"evaluation and logging excluded; seeds that train side by side share it), mean over {seeds}.",
                alt=_in_words(numbers, name),
                numbers=_means(timed),
                runs=runs,
                missing=missing,
                figure=style.mark(
                    draw(timed, name, "seconds of training per seed", better_is_high(metric), time=True), missing
                ),
            )


def measured_often(sweep: Sweep, task: str) -> str | None:
    """The measure of a task that has a history: one that is taken of single checkpoints alone makes no curve."""
    for metric in _NAMES:
        curves = sweep.curves(task, metric)
        if curves.groupby("run")["step"].nunique().max() > 2:
            return metric
    return None


def on_a_clock(sweep: Sweep, task: str, curves: pd.DataFrame) -> pd.DataFrame:
    """The curves with the training clock of their own run, in seconds, beside each step."""
    clock = sweep.curves(task, "time/train_seconds")[["run", "step", "value"]].rename(columns={"value": "seconds"})
    return curves.merge(clock, on=["run", "step"])


def _means(timed: pd.DataFrame) -> pd.DataFrame:
    grouped = timed.groupby(["variant", "step"], sort=False)
    return grouped.agg(seconds=("seconds", "mean"), mean=("value", "mean"), seeds=("seed", "nunique")).reset_index()


def _in_words(numbers: pd.DataFrame, name: str) -> str:
    last = numbers.sort_values("step").groupby("variant").last()["mean"].sort_values(ascending=False)
    return f"Curves of {name}; at the end: " + ", ".join(f"{key} {value:.3g}" for key, value in last.items()) + "."


def draw(curves: pd.DataFrame, name: str, along: str, high: bool, time: bool = False) -> Figure:
    """Learning curves in one panel per family of methods: all seeds faint, mean and 95% band in front.

    Args:
        curves: tidy frame with method, variant, seed, step, value, and seconds if ``time``.
    """
    family_of = {method: style.family(method) for method in curves["method"].unique()}
    families = curves["method"].map(family_of)
    present = [family for family in style.families() if family in family_of.values()]
    rows, columns = math.ceil(len(present) / 2), min(2, len(present))
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.65 * rows + 0.2), layout="constrained")
        panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).flat
        panels[0].set_ylim(*_limits(curves, high))
        if time:
            curves = curves[curves["seconds"] > 0]
            families = families[curves.index]
            panels[0].set_xscale("log")
            panels[0].set_xlim(curves["seconds"].quantile(0.01) / 2, curves["seconds"].max() * 1.2)
        for axes, family in zip(panels, present, strict=False):
            _panel(axes, curves[families == family], family, time)
        for axes in figure.axes[len(present) :]:
            axes.set_visible(False)
        figure.supxlabel(along, fontsize=8)
        figure.supylabel(name, fontsize=8)
    return figure


def _limits(curves: pd.DataFrame, high: bool) -> tuple[float, float]:
    """From the best final mean to some way beyond the median one: a variant far off would flatten all others."""
    ends = curves.sort_values("step").groupby(["variant", "seed"])["value"].last().groupby("variant").mean()
    best, middle = (ends.max(), ends.median()) if high else (ends.min(), ends.median())
    start = curves.sort_values("step").groupby(["variant", "seed"])["value"].first().median()
    spread = max(abs(best - middle) * 3, abs(best - start) * 0.6, 1e-9 + abs(best) * 0.05)
    return (best - spread, best + 0.06 * spread) if high else (best - 0.06 * spread, best + spread)


def _panel(axes: Any, curves: pd.DataFrame, title: str, time: bool) -> None:
    positions: dict[str, int] = {}
    low, high = axes.get_ylim()
    if len(curves) > _RASTER_POINTS:
        axes.set_rasterization_zorder(1.5)
    summaries = statistics.bands(curves).groupby(["variant"])
    by_variant = {str(variant): cells for variant, cells in curves.groupby("variant")}
    for variant in sorted(by_variant, key=natural):
        cells = by_variant[variant]
        method = str(cells["method"].iloc[0])
        colour, dash = style.colour(method), style.dashes(positions.setdefault(method, 0))
        positions[method] += 1
        faint = _apart(cells, ["seconds" if time else "step", "value"])
        axes.plot(*faint, color=colour, alpha=0.14, linewidth=0.5, zorder=1)  # all seeds, apart at the NaNs
        summary = summaries.get_group((variant,))
        x = cells.groupby("step")["seconds"].mean().to_numpy() if time else summary["step"].to_numpy()
        half_width = summary["half_width"].fillna(0.0)
        axes.fill_between(x, summary["mean"] - half_width, summary["mean"] + half_width, color=colour, alpha=0.2,
                          linewidth=0)  # fmt: skip
        end = float(summary["mean"].iloc[-1])
        label = variant if low <= end <= high else f"{variant} (to {end:.3g})"
        every = max(1, len(x) // 6)
        axes.plot(x, summary["mean"], color=colour, linestyle=dash, label=label, marker=style.marker(method),
                  markevery=(every // 2, every))  # fmt: skip
    if not time:
        style.thousands(axes.xaxis)
    axes.set_title(title)
    style.legend_below(axes)


def _apart(cells: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Quantities of all seeds in a row each, NaN between two seeds, where a line ends."""
    ordered = cells.sort_values(["seed", "step"])
    ends = np.flatnonzero(np.diff(ordered["seed"])) + 1
    return np.insert(ordered[names].to_numpy(dtype=float), ends, np.nan, axis=0).T


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
