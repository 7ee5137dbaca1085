"""Cost against quality: what an iteration takes, and how long until most of the gain is there."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reports import statistics, style
from reports.artefact import Artefact, Table
from reports.artefacts.figure3 import measured_often, on_a_clock
from reports.sweep import Sweep, better_is_high, selected, variants

SHARE = 0.95
_FORMATS = {"quality": "{:.3f}", "± 95%": "{:.3f}", "ms per iteration and seed": "{:.4g}", "s of training": "{:.3g}",
            "s compiling": "{:.3g}", "s to 95%": "{:.3g}", "iterations to 95%": "{:,.0f}",
            "peak memory (GB)": "{:.2f}"}  # fmt: skip


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task."""
    for task in sweep.tasks:
        metric, done = sweep.measures(task), sweep.of(task)
        if metric is None or "time/ms_per_step" not in done:
            continue
        frame, missing = costs(sweep, task, metric), len(sweep.missing(task))
        devices = ", ".join(sorted(set(done["device"])))
        yield Artefact(
            name=f"cost-{task}",
            title=f"Cost against quality ({task})",
            caption=f"{metric} against a seed's share of the time of an iteration (training clock, on {devices}; seeds "
            f"of one job train side by side). 95%: when the mean curve has first made {SHARE:.0%} of its way from the "
            f"first measurement to the last; no time where a curve ends below its start.",
            alt="Quality against milliseconds per iteration: "
            + ", ".join(f"{row.variant} {row.quality:.3g} at {row[4]:.3g} ms" for row in frame.itertuples()) + ".",
            numbers=frame,
            runs=list(done["run"]),
            missing=missing,
            figure=style.mark(draw(frame, done, metric), missing),
            table=Table(frame, _FORMATS),
        )  # fmt: skip


def costs(sweep: Sweep, task: str, metric: str) -> pd.DataFrame:
    """One row per variant."""
    done, often = sweep.of(task), measured_often(sweep, task)
    timed = on_a_clock(sweep, task, sweep.curves(task, often)) if often else pd.DataFrame(columns=["variant"])
    rows = []
    for variant in variants(done):
        cells = done[done["variant"] == variant]
        mean, half_width = statistics.interval(selected(cells, metric).dropna())
        step, seconds = reached(timed[timed["variant"] == variant], better_is_high(often or metric))
        rows.append(
            {
                "variant": variant,
                "quality": mean,
                "± 95%": half_width,
                "ms per iteration and seed": cells["time/ms_per_step"].mean(),
                "s of training": cells["time/train_seconds"].mean(),
                "s compiling": cells["time/compile_seconds"].mean() if "time/compile_seconds" in cells else math.nan,
                "iterations to 95%": step,
                "s to 95%": seconds,
                "peak memory (GB)": cells["memory/peak_bytes"].mean() / 1e9 if "memory/peak_bytes" in cells
                else math.nan,
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.sort_values("quality", ascending=not better_is_high(metric), ignore_index=True)


def reached(timed: pd.DataFrame, high: bool) -> tuple[float, float]:
    """Step and seconds at which the mean curve has first made 95% of its way; NaN where it ends no better.

    Args:
        timed: seed, step, value, seconds of one variant.
    """
    if timed.empty:
        return math.nan, math.nan
    mean = timed.groupby("step")[["value", "seconds"]].mean().sort_index()
    first, last = mean["value"].iloc[0], mean["value"].iloc[-1]
    if not (last > first if high else last < first):
        return math.nan, math.nan
    goal = first + SHARE * (last - first)
    there = mean[mean["value"] >= goal] if high else mean[mean["value"] <= goal]
    return float(there.index[0]), float(there["seconds"].iloc[0])


def draw(frame: pd.DataFrame, cells: pd.DataFrame, metric: str) -> Figure:
    """A point for each variant; what is far below the others stands on the lower edge, with its value."""
    method = dict(zip(cells["variant"], cells["method"], strict=True))
    high = better_is_high(metric)
    values = frame["quality"].dropna()
    best, middle = (values.max(), values.median()) if high else (values.min(), values.median())
    reach = 6 * abs(best - middle) + 1e-9 + 0.01 * abs(best)
    edge = best - reach if high else best + reach
    named = list[Any]()
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 3.2), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for row in frame.dropna(subset=["quality", "ms per iteration and seed"]).to_dict("records"):
            off = row["quality"] < edge if high else row["quality"] > edge
            x, y, colour = row["ms per iteration and seed"], edge if off else row["quality"], style.colour(
                method[row["variant"]])  # fmt: skip
            width = row["± 95%"]
            if not off and not math.isnan(width):
                axes.errorbar(x, y, yerr=width, color=colour, linewidth=0.8)
            axes.plot(x, y, marker=style.marker(method[row["variant"]]), color=colour, markersize=5)
            text = f"{row['variant']} ({row['quality']:.3g})" if off else row["variant"]
            named.append(axes.annotate(text, (x, y), (5, 3), textcoords="offset points", fontsize=6.5, color=colour))
        pad = 0.08 * abs(best - edge)
        axes.set_ylim(*sorted((edge - pad if high else edge + pad, best + pad if high else best - pad)))
        axes.set(xlabel="ms per iteration and seed", ylabel=metric)
        axes.margins(x=0.12)
        if len(named) <= style.MANY:
            _apart(figure, named)
        else:
            for text in named:
                text.remove()
    return figure


def _apart(figure: Figure, texts: list[Any]) -> None:
    """Moves each text to the first place around its point where it lies over none before it."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    placed = list[Any]()
    for text in sorted(texts, key=lambda text: text.xy):
        for offset in ((5, 3), (5, -9), (5, 12), (5, -18), (5, 21), (5, -27), (5, 30)):
            text.set_position(offset)
            box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
            if not any(box.overlaps(other) for other in placed):
                break
        placed.append(box)
