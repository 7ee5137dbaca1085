"""Cost against quality: what an iteration takes, and how long until a level is reached that is the same for all."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.measures.ranking import PROCESSOR, WALL, clock
from reports import statistics, style, terms, timing
from reports.artefact import Artefact, Table, fixed
from reports.artefacts import ranking
from reports.artefacts.figure3 import measured_often, on_a_clock
from reports.labels import Point, label
from reports.methods import Method, of_variants
from reports.sweep import Sweep, better_is_high, selected, variants

SHARE = 0.95
_NEAR = 1.05  # times the cost of the marker before
_MS, _BY_PROCESSOR, _BY_WALL = "ms per iteration and seed", "ms of processor time", "ms of the wall's clock"


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task; a figure where there are variants to compare."""
    for task in sweep.tasks:
        metric, done = sweep.measures(task), sweep.of(task)
        if metric is None or WALL not in done:
            continue
        frame, missing, often = costs(sweep, task, metric), len(sweep.missing(task)), measured_often(sweep, task)
        name, method = terms.measure(metric), of_variants(sweep.of(task, None))
        uncompiled = timing.not_compiled(done)
        drawn = frame if uncompiled.all() else frame[~frame["variant"].isin(done["variant"][uncompiled])]
        drawn = drawn[drawn["quality"].map(math.isfinite) & drawn[_MS].map(math.isfinite)]
        figure, off = draw(drawn, method, metric, clock(done)) if len(drawn) > 1 else (None, False)
        yield Artefact(
            name=f"cost-{task}",
            title=f"Cost against quality ({task})",
            caption=f"Quality, {name}, against a seed's share of the time of an iteration ({timing.said(done)}; "
            "seeds of one job train side by side; the first steps are left out)."
            + (" Processor time, of all threads together, is what other work beside it disturbs least; seconds are of "
               "the training clock." if {_BY_PROCESSOR, _BY_WALL} & set(frame) else "")
            + timing.machines(done)
            + _about_compiling(done, uncompiled)
            + ranking.unknown(sweep, task, metric)
            + terms.below_zero(metric, frame["quality"], frame["± 95%"])
            + style.whose(method, lines=False)
            + (" Hollow triangles stand at the edge for variants beyond it, with their values." if off else "")
            + (_reaching(sweep, task, often) if often else ""),
            alt=f"{terms.capital(name)} against milliseconds per iteration: "
            + ", ".join(f"{row['variant']} {terms.number(row['quality'])} at {terms.number(row[_MS])} ms"
                        for row in drawn.to_dict("records")) + ".",
            numbers=frame,
            runs=list(done["run"]),
            missing=missing,
            figure=figure and style.mark(figure, missing),
            table=Table(frame, _formats(frame), {"quality": "", "± 95%": ""}, frame["± 95%"]),
        )  # fmt: skip


def _about_compiling(done: pd.DataFrame, uncompiled: pd.Series) -> str:
    """Why the times are no steady-state times of compiled code, where they are not."""
    if uncompiled.all() and len(uncompiled):
        return (
            " No time is one of compiled code, since trainings as short as these are not compiled: long ones take a "
            "fraction of it, and in other proportions (python -m benchmark speed measures them)."
        )
    left = sorted(set(done["variant"][uncompiled]))
    return f" Not drawn, since their steps were not compiled and the others' were: {', '.join(left)}." if left else ""


def _reaching(sweep: Sweep, task: str, often: str) -> str:
    level = goal(sweep.curves(task, often), better_is_high(often))
    if level is None:
        return ""
    start, goal_, end = map(terms.number, level)
    steps = sorted(sweep.curves(task, often)["step"].unique())
    return (f" To {goal_}: when a variant's mean curve of {terms.measure(often, unit=False)} has first reached this "
            f"level, which is the same for all, {SHARE:.0%} of the way from the initial models ({start}, the median "
            f"variant's) to the best mean at the end ({end}); looked at every "
            f"{terms.counted(int(np.median(np.diff(steps))), 'iteration')}, and nothing where it is never reached."
            )  # fmt: skip


def _formats(frame: pd.DataFrame) -> dict[str, str]:
    clocks = {name: fixed(frame[name], 3) for name in (_MS, _BY_PROCESSOR, _BY_WALL) if name in frame}
    named = {**clocks, "peak memory (GB)": "{:.2f}"}
    for name in map(str, frame):
        if name.startswith("s "):
            named[name] = fixed(frame[name])
        elif name.startswith("iterations "):
            named[name] = "{:,.0f}"
    return named


def costs(sweep: Sweep, task: str, metric: str) -> pd.DataFrame:
    """One row per variant."""
    done, often = sweep.of(task), measured_often(sweep, task)
    curves = sweep.curves(task, often) if often else pd.DataFrame(columns=["variant"])
    timed, level = (on_a_clock(sweep, task, curves), goal(curves, better_is_high(often))) if often else (curves, None)
    to = f"to {terms.number(level[1])}" if level else "to"
    of = "" if often in (None, metric) else f" of {terms.short(str(often))}"
    of_times = clock(done)
    other, head = (WALL, _BY_WALL) if of_times == PROCESSOR else (PROCESSOR, _BY_PROCESSOR)
    rows = []
    for variant in variants(done):
        cells = done[done["variant"] == variant]
        mean, half_width = statistics.interval(selected(cells, metric).dropna())
        compiled = cells[~timing.not_compiled(cells)]
        known = timed[timed["variant"] == variant]
        step, seconds = reached(known, level[1], better_is_high(str(often))) if level else (math.nan, math.nan)
        rows.append(
            {
                "variant": variant,
                "quality": mean,
                "± 95%": half_width,
                _MS: cells[of_times].mean(),
                head: cells[other].mean() if other in cells else math.nan,
                "s of training": cells["time/train_seconds"].mean(),
                "s compiling": compiled["time/compile_seconds"].mean() if "time/compile_seconds" in cells else math.nan,
                f"iterations {to}{of}": step,
                f"s {to}{of}": seconds,
                "peak memory (GB)": cells["memory/peak_bytes"].mean() / 1e9 if "memory/peak_bytes" in cells
                else math.nan,
            }
        )  # fmt: skip
    frame, may_lack = pd.DataFrame(rows), ("s ", "iterations ", head)
    frame = frame.drop(columns=[name for name in frame if str(name).startswith(may_lack) and frame[name].isna().all()])
    return frame.sort_values("quality", ascending=not better_is_high(metric), ignore_index=True)


def goal(curves: pd.DataFrame, high: bool) -> tuple[float, float, float] | None:
    """Where the variants begin, the level that all are timed to, and the best end; None where none gets better."""
    means = curves.groupby(["variant", "step"])["value"].mean().dropna().reset_index().sort_values("step")
    ends = means.groupby("variant")["value"].agg(["first", "last"])
    if ends.empty:
        return None
    start, end = float(ends["first"].median()), float(ends["last"].max() if high else ends["last"].min())
    return (start, start + SHARE * (end - start), end) if (end > start if high else end < start) else None


def reached(timed: pd.DataFrame, level: float, high: bool) -> tuple[float, float]:
    """Step and seconds at which the mean curve has first reached a level; NaN where it never does.

    Args:
        timed: seed, step, value, seconds of one variant.
    """
    if timed.empty:
        return math.nan, math.nan
    mean = timed.groupby("step")[["value", "seconds"]].mean().sort_index()
    there = mean[mean["value"] >= level] if high else mean[mean["value"] <= level]
    return (float(there.index[0]), float(there["seconds"].iloc[0])) if len(there) else (math.nan, math.nan)


def draw(frame: pd.DataFrame, method: dict[str, Method], metric: str, by: str = WALL) -> tuple[Figure, bool]:
    """A point with its interval for each variant; what is far from the best is a hollow triangle at the edge.

    Args:
        by: the clock that the times are of.

    Returns:
        The figure, and whether there are such triangles.
    """
    looks, shown = style.looks(method), frame.dropna(subset=["quality", _MS])
    sign = 1.0 if better_is_high(metric) else -1.0
    values = sign * shown["quality"]
    reach = 6 * (values.max() - values.median()) + 1e-9 + 0.01 * abs(values.max())
    off = values < values.max() - reach
    while True:
        inside, width = shown["quality"][~off], shown["± 95%"][~off].fillna(0.0)
        low, high = (inside - width).min(), (inside + width).max()
        pad = 0.06 * (high - low) + 1e-9
        rows = _rows(shown[_MS].where(off))
        edge, away = (low, -pad) if sign > 0 else (high, pad)  # where the triangles are, outwards
        beyond = edge + away * (rows.max() + 2 if off.any() else 1)
        fits = off & (values >= sign * beyond)  # within the axis, and so in its place
        if not fits.any():
            break
        off = off & ~fits
    points = list[Point]()
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for row, far, at in zip(shown.to_dict("records"), off, edge + away * (1 + rows), strict=True):
            name, x, y, look = row["variant"], row[_MS], row["quality"], looks[row["variant"]]
            colour = look.colour
            if far:
                axes.plot(
                    x, at, gid=name, marker="v" if sign > 0 else "^", color=colour, markersize=5, markerfacecolor="none"
                )
                points.append(Point(f"{name} ({terms.number(y)})", x, at, 0.0, colour))
                continue
            half = 0.0 if math.isnan(row["± 95%"]) else row["± 95%"]
            bars = axes.errorbar(x, y, yerr=half or None, color=colour, linewidth=0.8,
                                 marker=look.marker, markersize=5,
                                 markerfacecolor="none" if look.thin else colour)  # fmt: skip
            bars[0].set_gid(name)
            for bar in bars[2]:
                bar.set_gid(f"_{name}")
            points.append(Point(name, x, y, half, colour))
        axes.set_ylim(*sorted((beyond, high + pad if sign > 0 else low - pad)))
        axes.set(
            xlabel=f"{_BY_PROCESSOR if by == PROCESSOR else 'ms'} per iteration and seed",
            ylabel=style.in_lines(terms.measure(metric), 2.3),
        )
        axes.margins(x=0.12)
        least, most = shown[_MS].min(), shown[_MS].max()
        if most <= 1.01 * least:  # a logarithmic axis has no room between equal values
            axes.set_xlim(least / 1.5, most * 1.5)
        style.plain(axes.xaxis)
        if len(points) <= style.MANY:
            label(figure, axes, points)
    return figure, bool(off.any())


def _rows(x: pd.Series) -> np.ndarray:
    """For markers at an edge the row that each stands in, so that none covers its neighbour; NaN is at no edge."""
    found, last, row = np.zeros(len(x), dtype=int), 0.0, 0
    for place in np.argsort(x.to_numpy()):
        row = row + 1 if x.iloc[place] < _NEAR * last else 0
        found[place], last = row, x.iloc[place]
    return found
