"""What a reader wants first: where every variant ends, with its interval."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import off_scale, style, terms
from reports.artefact import Artefact
from reports.artefacts import ranking
from reports.methods import Method, of_variants
from reports.sweep import Sweep, better_is_high


def build(sweep: Sweep) -> Iterator[Artefact]:
    """A dot with its interval for each variant of each task that has something to be compared by."""
    for task in sweep.tasks:
        metric, done = sweep.measures(task), sweep.of(task)
        if metric is None:
            continue
        frame = ranking.ranking(sweep, task, metric).dropna(subset=["mean"])
        if not np.isfinite(frame["mean"]).any():
            continue
        figure, off, cut = draw(frame[: style.MANY], of_variants(sweep.of(task, None)), metric)
        missing, alone = len(sweep.missing(task)), int(frame["± 95%"].isna().sum())
        name, best = terms.measure(metric), frame.iloc[0]
        yield Artefact(
            name=f"summary-{task}",
            title=f"Summary ({task})",
            caption=f"{terms.capital(name)} of {terms.counted(len(frame), 'variant')}, best first: mean over seeds "
            f"({_seeds(frame)}) and its 95% interval (Student's t); the rule is that of the ranking."
            + ranking.unknown(sweep, task, metric)
            + (f" {terms.counted(alone, 'variant')} with one seed {'has' if alone == 1 else 'have'} no interval."
               if alone else "")
            + (f" Hollow triangles stand at the edge for {terms.counted(off, 'variant')} beyond it, with "
               f"{'its value' if off == 1 else 'their values'}." if off else "")
            + (" Intervals that reach the edge go on beyond it." if cut else "")
            + terms.below_zero(metric, frame["mean"], frame["± 95%"])
            + f" First is {best['variant']} with {terms.number(best['mean'])}; "
            + ("with one seed each nothing says whether it is better than the others." if alone == len(frame)
               else "whether it is better than others the comparisons say, not this order."),
            alt=f"{terms.capital(name)}: "
            + ", ".join(f"{row['variant']} {terms.number(row['mean'])}" for row in frame.to_dict("records")) + ".",
            numbers=frame,
            runs=list(done["run"]),
            missing=missing,
            figure=style.mark(figure, missing),
        )  # fmt: skip


def _seeds(frame: pd.DataFrame) -> str:
    fewest, most = int(frame["seeds"].min()), int(frame["seeds"].max())
    return terms.counted(most, "seed") if fewest == most else f"{fewest} to {most} seeds"


def draw(frame: pd.DataFrame, method: dict[str, Method], metric: str) -> tuple[Figure, int, bool]:
    """A row for each variant; what is far from the best is a hollow triangle at the edge.

    Returns:
        The figure, how many triangles it has, and whether an interval goes on beyond the edge.
    """
    high = better_is_high(metric)
    half, axis = frame["± 95%"].fillna(0.0), _axis(frame, high)
    far = axis.beyond(frame["mean"])
    with style.look():
        figure, looks = Figure(layout="constrained"), style.looks(method)
        axes = figure.add_subplot()
        for place, (row, off) in enumerate(zip(frame.to_dict("records"), far, strict=True)):
            name, (colour, marker, *_) = row["variant"], looks[row["variant"]]
            if off:
                axes.plot([axis.at], [place], marker=off_scale.arrow(axis, vertical=False), color=colour, gid=name,
                          markerfacecolor="none", linestyle="")  # fmt: skip
                axes.annotate(terms.number(row["mean"]), (axis.at, place), (6 * axis.sign, 0), color=colour,
                              textcoords="offset points", fontsize=6.5, va="center",
                              ha="left" if axis.sign > 0 else "right")  # fmt: skip
                continue
            if not math.isnan(row["± 95%"]):
                ends = [row["mean"] - row["± 95%"], row["mean"] + row["± 95%"]]
                axes.plot(ends, [place] * 2, color=colour, linewidth=1.6, label="_interval", gid=f"_{name}")
            axes.plot([row["mean"]], [place], marker=marker, color=colour, markersize=4.5, gid=name)
        style.names(axes, list(frame["variant"]))
        axes.locator_params(axis="x", nbins=6)
        axes.set(xlim=(axis.low, axis.high), xlabel=terms.measure(metric))
        style.below_power(axes)
    outside = (frame["mean"] - half < axis.low) | (frame["mean"] + half > axis.high)
    return figure, int(far.sum()), bool((outside & ~far).any())


def _axis(frame: pd.DataFrame, high: bool) -> off_scale.Axis:
    """Intervals take at most the room that all means take, or twice that of the median interval, as what differs by
    less is no difference: those that are wider go on beyond the edge."""
    means, half = frame["mean"], frame["± 95%"].replace(math.inf, math.nan)
    axis = off_scale.axis(means, means, high)
    assert axis is not None
    span, near = (axis.high - axis.low) / 2, ~axis.beyond(means)
    while True:
        room = np.nanmax([span, 2 * half[near].median()])
        kept, width = means[near], frame["± 95%"][near].fillna(0.0)
        ends = pd.concat([kept - width, kept + width]).clip(kept.min() - room, kept.max() + room)
        axis = off_scale.axis(means, ends, high)
        assert axis is not None
        more = ~axis.beyond(means) & ~near  # beside intervals so wide these are not far off
        if not more.any():
            return axis
        near |= more
