"""Figure 3: test log-likelihood against iterations."""

import math
import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from reports import style

METRIC = "test/log_likelihood"
_SHOWN = 1.4  # nats below the best final mean; what ends lower is named with its value


def natural(variant: str) -> list[tuple[int, str]]:
    """Sorts "CD-5" before "CD-10"."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", variant)]


def band(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean and half-width of its 95% interval (Student's t over seeds) at every step of one variant."""
    grouped = curves.groupby("step")["value"]
    count = grouped.count()
    quantile = pd.Series(stats.t.ppf(0.975, count - 1), index=count.index)
    half_width: pd.Series[float] = quantile * grouped.std(ddof=1) / np.sqrt(count)
    return pd.DataFrame({"mean": grouped.mean(), "half_width": half_width.fillna(0.0), "seeds": count}).reset_index()


def draw(curves: pd.DataFrame, missing: int = 0) -> Figure:
    """Learning curves in one panel per family of methods: all seeds faint, mean and 95% band in front.

    Args:
        curves: tidy frame with method, variant, seed, step, value; only cells that are done.
        missing: how many cells of the plan are not in it; said on the figure when not zero.
    """
    present = [name for name in style.families() if (curves["method"].map(style.family) == name).any()]
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.3 * math.ceil(len(present) / 2)), layout="constrained")
        panels = np.atleast_1d(
            figure.subplots(math.ceil(len(present) / 2), min(2, len(present)), sharex=True, sharey=True)
        )
        last = curves[curves["step"] == curves["step"].max()]
        best = float(last.groupby("variant")["value"].mean().max())
        panels.flat[0].set_ylim(best - _SHOWN, best + 0.1)
        for axes, name in zip(panels.flat, present, strict=False):
            _panel(axes, curves[curves["method"].map(style.family) == name], name)
        for axes in panels.flat[len(present):]:  # fmt: skip
            axes.set_visible(False)
        figure.supxlabel("iteration")
        figure.supylabel("test log-likelihood (nats)")
        if missing:
            figure.suptitle(f"INCOMPLETE: {missing} cells are missing or failed", color="crimson")
    return figure


def _panel(axes: Any, curves: pd.DataFrame, title: str) -> None:
    positions: dict[str, int] = {}
    for variant in sorted(curves["variant"].unique(), key=natural):
        cells = curves[curves["variant"] == variant]
        method = str(cells["method"].iloc[0])
        colour, dash = style.colour(method), style.dashes(positions.setdefault(method, 0))
        positions[method] += 1
        for _, seed in cells.groupby("seed"):
            axes.plot(seed["step"], seed["value"], color=colour, alpha=0.12, linewidth=0.5)
        summary = band(cells)
        axes.fill_between(summary["step"], summary["mean"] - summary["half_width"],
                          summary["mean"] + summary["half_width"], color=colour, alpha=0.2, linewidth=0)  # fmt: skip
        end = float(summary["mean"].iloc[-1])
        label = f"{variant} (to {end:.1f})" if end < axes.get_ylim()[0] else variant
        axes.plot(summary["step"], summary["mean"], color=colour, linestyle=dash, label=label)
    axes.set_title(title)
    axes.legend(frameon=False, ncols=2, loc="lower right")
