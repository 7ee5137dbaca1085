"""What less bias costs: how far the methods' expected gradients are from the true one, against N or L and against the
time of an iteration."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.measures import ranking
from reports import paper, statistics, style, terms, timing
from reports.artefact import Artefact, Table, fixed
from reports.labels import Point, label
from reports.methods import Method, of_variants
from reports.sweep import Sweep

_VALUE = re.compile(r"bias/gradient(?:_(low|high|spread|true))?_after_(\d+)")
_COUNTS = {"unroll_steps": "N", "particles": "L"}  # what a curve is drawn against, the first that a method has
_ONLY = {"damping": "implicit", "neumann_rate": "neumann"}  # hyper-parameters of one hypergradient alone
_WORDS = {"hypergradient": "", "neumann_rate": "rate "}  # in front of a value, in place of its name
_VALUES = {"unroll": "unrolled", "neumann": "Neumann"}
_MS, _BIAS, _ROOM = "ms", "bias", 1.3


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Of each task on which the bias of methods was measured."""
    for task in sweep.tasks:
        done, missing = sweep.of(task), len(sweep.missing(task))
        measured = [str(name) for name in done if _VALUE.fullmatch(str(name)) and done[name].notna().any()]
        if not measured:
            continue
        cells = done[done[measured].notna().any(axis=1)]
        clock, said = _clock(cells)
        frame = points(cells, clock)
        uncompiled = timing.not_compiled(cells)
        yield Artefact(
            name=f"bias-cost-{task}",
            title=paper.title(1, sweep.suite, task, "what less bias costs"),
            caption="Norm of (expected gradient − true gradient) at one model and one posterior, those of a training "
            "that follows the true gradient, after each method's own inner steps; left against the unrolled steps (or "
            "iterations of conjugate gradients, or terms) N and VaGES's particles L, right against the time of an "
            f"iteration of training ({said}). The share of the draws' noise is taken off its square; bars are 95% "
            "intervals over draws, hollow triangles their upper ends where the bias is not told from 0. What is above "
            "the true gradient's own norm, which no gradient at all has, stands at the upper edge. Thin line: "
            "no other variant here has less bias in less time (\"best\" in the table)."
            + (" Some steps were not compiled: their times are no steady-state times." if uncompiled.any() else ""),
            alt="; ".join(f"{row['variant']}: bias {terms.number(row[_BIAS])} at {terms.number(row[_MS])} ms"
                          for row in frame[frame["after"] == frame["after"].max()].to_dict("records")) + ".",
            numbers=frame,
            runs=list(cells["run"]),
            missing=missing,
            figure=style.mark(draw(frame, of_variants(sweep.of(task, None))), missing),
            table=_table(frame),
        )  # fmt: skip


def _clock(cells: pd.DataFrame) -> tuple[str, str]:
    """The metric that times are read from, and how they were taken: processor time where each process had one thread,
    which is what an idle machine would take and other work disturbs less."""
    single = (cells.get("threads", pd.Series("", cells.index)) == "1").all()
    timed = cells if single else cells.drop(columns=ranking.PROCESSOR, errors="ignore")
    return ranking.clock(timed), timing.said(timed)


def points(cells: pd.DataFrame, clock: str) -> pd.DataFrame:
    """after, series, count, variant, bias, low, high, of true, spread, ms, clock ms, peak MB, best; by these."""
    names = series_of(cells)
    groups: dict[tuple[int, str], dict[str, Any]] = {}
    for column in map(str, cells):
        found = _VALUE.fullmatch(column)
        if not found:
            continue
        for variant, values in cells.groupby("variant")[column]:
            row = groups.setdefault((int(found[2]), str(variant)), {})
            row[found[1] or _BIAS] = values.mean()
    rows = []
    for (after, variant), row in groups.items():
        mine = cells[cells["variant"] == variant]
        series, count = names[variant]
        rows.append(
            {
                "after": after,
                "series": series,
                "count": count,
                "variant": variant,
                **row,
                _MS: mine[clock].mean() if clock in mine else np.nan,
                "clock ms": mine[ranking.WALL].mean() if ranking.WALL in mine else np.nan,
                "peak MB": mine["memory/peak_bytes"].mean() / 1e6 if "memory/peak_bytes" in mine else np.nan,
            }
        )
    frame = pd.DataFrame(rows).dropna(subset=[_BIAS])
    frame["best"] = [_is_best(row, frame) for row in frame.to_dict("records")]
    return frame.sort_values(["after", "series", "count", "variant"], ignore_index=True)


def _is_best(row: Any, frame: pd.DataFrame) -> bool:
    """Whether no other has at most as much bias in at most as much time."""
    others = frame[(frame["after"] == row["after"]) & (frame["variant"] != row["variant"])]
    better = (others[_BIAS] <= row[_BIAS]) & (others[_MS] <= row[_MS])
    return not bool(better.any()) and bool(np.isfinite(row[_MS]))


def series_of(cells: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Of each variant the curve that it belongs to and its N or L: NaN of methods that have neither."""
    method, found = of_variants(cells), dict[str, tuple[str, float]]()
    params = [str(name).removeprefix("param.") for name in cells if str(name).startswith("param.")]
    for of, group in cells.groupby("method"):
        own = [name for name in params if group[f"param.{name}"].notna().any()]
        counted = next((name for name in _COUNTS if name in own), None)
        rest = sorted({*own} - {counted, "seed", "steps"}, key=lambda name: (name not in _WORDS, name))
        differing = [name for name in rest if group[f"param.{name}"].nunique() > 1]
        counts = statistics.counts(group[f"param.{counted}"]) if counted else [np.nan] * len(group)
        for row, count in zip(group.to_dict("records"), counts, strict=True):
            kind = row.get("param.hypergradient")
            texts = [
                _WORDS.get(name, f"{terms.hyperparameter(name)} ") + _said(row[f"param.{name}"])
                for name in differing
                if name not in _ONLY or _ONLY[name] == kind
            ]
            text = ", ".join([method[row["variant"]].label or str(of), *texts])
            found[row["variant"]] = text, count
    return found


def _said(value: Any) -> str:
    return _VALUES.get(str(value), str(value))


def _table(frame: pd.DataFrame) -> Table:
    shown = pd.DataFrame(
        {
            "after": frame["after"],
            "variant": frame["variant"],
            _BIAS: frame[_BIAS],
            "95% interval": [f"{terms.number(low)} to {terms.number(high)}" for low, high in zip(
                frame["low"], frame["high"], strict=True)],
            "share of the true gradient": frame[_BIAS] / frame["true"],
            "noise of one gradient": frame["spread"],
            "ms per iteration": frame[_MS],
            "peak MB": frame["peak MB"],
            "best": ["yes" if best else "" for best in frame["best"]],
        }
    )  # fmt: skip
    formats = {
        "after": "{:,.0f}",
        _BIAS: "{:.3f}",
        "share of the true gradient": "{:.1%}",
        "noise of one gradient": "{:.2f}",
        "ms per iteration": fixed(shown["ms per iteration"], 3),
        "peak MB": "{:,.0f}",
    }
    return Table(shown, formats)


def draw(frame: pd.DataFrame, method: dict[str, Method]) -> Figure:
    """A row for each point of the training: the bias against N or L, and against milliseconds."""
    afters = sorted(frame["after"].unique())
    look = {name: _look(place) for place, name in enumerate(_in_order(frame, method))}
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.6 * len(afters) + 0.5), layout="constrained")
        panels = figure.subplots(len(afters), 2, sharey="row", sharex="col", squeeze=False)
        named = list[tuple[Any, list[Point]]]()
        for row, after in zip(panels, afters, strict=True):
            rows = frame[frame["after"] == after]
            low, high = _limits(rows)
            for axes, x in zip(row, ("count", _MS), strict=True):
                axes.set_yscale("log")
                axes.set_ylim(low, high)
                drawn = [
                    _curve(axes, curve, x, (low, high), name, look[name]) for name, curve in rows.groupby("series")
                ]
                if x == _MS:
                    _frontier(axes, rows, low)
                    named.append((axes, [point for points in drawn for point in points]))
            row[0].set_xscale("symlog", linthresh=1)
            truth = terms.number(rows["true"].mean())
            row[0].set_ylabel(f"bias after {terms.number(after)} iterations\n(true gradient: {truth})")
            row[1].set_xscale("log")
            row[1].margins(x=0.08)
            style.plain(row[0].yaxis)
        counts = [0, 1, 2, 5, 10, 20, 40]
        panels[-1, 0].set_xticks(counts, [str(n) for n in counts])
        panels[-1, 0].minorticks_off()
        panels[-1, 0].set_xlabel("unrolled steps, iterations or terms N; particles L")
        panels[-1, 1].set_xlabel("ms per iteration")
        style.plain(panels[-1, 1].xaxis)
        handles, labels = _legend(panels, list(look))
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        for axes, at in named:
            if len(at) <= style.MANY:
                label(figure, axes, at)
    return figure


def _look(place: int) -> dict[str, Any]:
    """Of the n-th curve: where colours return, hollow and dashed."""
    colour, marker = style.series(place)
    again = (
        {"markerfacecolor": "white", "linestyle": "--"} if colour in {style.series(n)[0] for n in range(place)} else {}
    )
    return {"color": colour, "marker": marker, "markersize": 4, "linewidth": 0.9, **again}


def _in_order(frame: pd.DataFrame, method: dict[str, Method]) -> list[str]:
    """The curves, those of a method beside each other, the longest of each first."""
    sizes = frame.groupby("series")["variant"].nunique()
    of = {row["series"]: method[row["variant"]].id for row in frame.to_dict("records")}
    return sorted(sizes.index, key=lambda name: (of[name], -sizes[name], name))


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Of the logarithmic axis of a row: down to a little below the least that is told from 0. An interval that is 0
    altogether, as one in forty of a gradient without bias is, says nothing of it. And up to the true gradient's norm,
    a little above which ``_far`` stands."""
    ends = rows[["low", "high"]].to_numpy()
    least, most = ends[ends > 0].min(initial=np.inf), min(rows["high"].max(), _ROOM * rows["true"].mean())
    return (float(least / _ROOM), float(_ROOM * most)) if most > 0 else (0.1, 1.0)


def _far(row: Any) -> bool:
    """Whether the bias is beyond the axis: larger than the true gradient."""
    return bool(row[_BIAS] > row["true"])


def _curve(
    axes: Any, curve: pd.DataFrame, x: str, ends: tuple[float, float], name: str, look: dict[str, Any]
) -> list[Point]:
    """A curve with its intervals; hollow triangles where the bias is not told from 0, at the axis's lower end where
    the interval is 0 altogether; arrows near its upper end, with the value, where it is beyond. Its points, to be
    named."""
    (low, high), colour = ends, look["color"]
    curve, found = curve.dropna(subset=[x]).sort_values(x), list[Point]()
    curve["high"] = curve["high"].clip(lower=low)
    told = curve[(curve["low"] > 0) & ~curve.apply(_far, axis=1)]
    axes.plot(told[x], told[_BIAS], label=name, **look)
    for row in curve.to_dict("records"):
        text, y = f"{row['count']:g}" if np.isfinite(row["count"]) else row["variant"], row[_BIAS]
        if _far(row):
            y, text = high / _ROOM**0.5, f"{text}: {terms.number(y)}"
            axes.plot(row[x], y, color=colour, marker="^", markersize=4)
        elif row["low"] > 0:
            axes.plot([row[x]] * 2, [row["low"], row["high"]], color=colour, linewidth=0.9)
        else:
            y = row["high"]
            axes.plot(row[x], y, color=colour, marker="v", markersize=4, markerfacecolor="none")
        found.append(Point(text, row[x], y, 0.0, colour))
    return found


def _frontier(axes: Any, rows: pd.DataFrame, low: float) -> None:
    """Through the variants that no other beats in both."""
    best = rows[rows["best"]].sort_values(_MS)
    shown = np.where(best["low"] > 0, best[_BIAS], best["high"].clip(lower=low))
    axes.step(best[_MS], shown, where="post", color=style.INK, linewidth=0.5, zorder=1)


def _legend(panels: Any, order: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Each curve once, of all panels."""
    found: dict[str, Any] = {}
    for axes in panels.flat:
        found |= {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [name for name in order if name in found]
    return [found[name] for name in names], names
