"""The Pareto front of studies with two objectives."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import off_scale, style, terms
from reports.artefact import Artefact, Table, fixed
from reports.artefacts.tuning_slices import legend, scatter
from reports.studies import Studies, Study, basis

_COLUMNS = 3
_LOGARITHMIC = 10  # a positive objective to be small spans more than this factor


def build(studies: Studies) -> Iterator[Artefact]:
    """For each task and pair of objectives one with a panel for each method."""
    for task in studies.tasks:
        pairs: dict[tuple[str, ...], list[Study]] = {}
        for study in studies.of(task):
            if len(study.objectives) == 2 and len(_valued(study)):
                pairs.setdefault((*study.objectives, str(study.maximise)), []).append(study)
        for place, of_pair in enumerate(pairs.values()):
            frame = pd.concat([trials(study) for study in of_pair], ignore_index=True)
            first, second = of_pair[0].objectives
            named = [terms.measure(name) for name in (first, second)]
            best = frame[frame["on the front"]].sort_values(["method", second], kind="stable")
            best = pd.concat([best[best["method"] == study.label] for study in of_pair])
            table = best[["method", "trial", "variant", first, second]].reset_index(drop=True)
            table = table.rename(columns={"variant": "preset's variant", first: named[0], second: named[1]})
            yield Artefact(
                name=f"front-{task}" + (f"-{place + 1}" if place else ""),
                title=f"{terms.capital(terms.measure(first, unit=False))} against "
                f"{terms.measure(second, unit=False)} ({task})",
                caption=f"{basis(of_pair)}. All complete trials; the line and the table are the Pareto front, the "
                "trials that no other one of the method equals or betters in both objectives. Stars: the preset's "
                "values; the ring: the best of the first objective. Triangles stand at the edge for values beyond it.",
                alt="Pareto fronts: " + "; ".join(
                    f"{study.label} with {terms.counted(int(front(study).sum()), 'trial')}" for study in of_pair) + ".",
                numbers=frame,
                runs=list(frame["run"]),
                figure=draw(of_pair),
                table=Table(table, {named[0]: fixed(np.diff(np.sort(table[named[0]])), 2, least=3),
                                    named[1]: fixed(table[named[1]], 3)}),
            )  # fmt: skip


def _valued(study: Study) -> pd.DataFrame:
    """Complete trials with both values finite."""
    complete = study.complete
    return complete.loc[np.isfinite(complete[list(study.objectives)].to_numpy(float)).all(axis=1)]


def front(study: Study) -> pd.Series:
    """Of every complete trial, whether no other is at least as good in both objectives and better in one."""
    signs = [1.0 if more else -1.0 for more in study.maximise]
    found = _valued(study)
    points = np.stack([sign * found[name].to_numpy(float) for sign, name in zip(signs, study.objectives, strict=True)])
    on, best, at = np.zeros(len(found), dtype=bool), -math.inf, math.nan
    for place in np.lexsort((-points[0], -points[1])):  # best of the second objective first
        first, second = points[:, place]
        if first > best:
            on[place], best, at = True, first, second
        elif first == best and second == at:  # its twin
            on[place] = True
    return pd.Series(on, found.index).reindex(study.complete.index, fill_value=False)


def trials(study: Study) -> pd.DataFrame:
    """The complete trials with what they were set to, and whether they are on the front."""
    complete = study.complete.drop(columns=["state", "reason", "iteration", "seconds"])
    complete.insert(0, "method", study.label)
    return complete.assign(**{"on the front": front(study)})


def draw(studies: Sequence[Study]) -> Figure:
    """A panel for each study, all on the same axes."""
    rows, columns = math.ceil(len(studies) / _COLUMNS), min(len(studies), _COLUMNS)
    valued = pd.concat([_valued(study) for study in studies])
    upward, across = (
        off_scale.axis(valued[name].astype(float), [], more)
        for name, more in zip(studies[0].objectives, studies[0].maximise, strict=True)
    )
    assert across is not None
    assert upward is not None
    second = valued[studies[0].objectives[1]].astype(float)
    log = bool(not studies[0].maximise[1] and second.min() > 0 and second.max() > _LOGARITHMIC * second.min())
    if log:  # nothing is far off on it
        across = off_scale.Axis(second.min() / 1.15, second.max() * 1.15, second.max(), second.max(), -1.0)
    with style.look():
        width = max(style.COLUMN_WIDTH, style.TEXT_WIDTH * columns / _COLUMNS)
        figure = Figure(figsize=(width, 2.1 * rows + 0.5), layout="constrained")
        figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, study in zip(figure.axes, studies, strict=False):
            _panel(axes, study, across, upward)
            axes.set_title(study.label)
        figure.axes[0].set(ylim=(upward.low, upward.high), xlim=(across.low, across.high))
        if log:
            figure.axes[0].set_xscale("log")
            if second.max() < 1000 * second.min():
                style.plain(figure.axes[0].xaxis)
        style.leave(figure, len(studies), columns)
        figure.supylabel(terms.measure(studies[0].objectives[0]), fontsize=8)
        for axes in figure.axes[max(0, len(studies) - columns) : len(studies)]:
            axes.set_xlabel(terms.measure(studies[0].objectives[1]))
        one = len({study.method for study in studies}) == 1
        colour = style.colour(studies[0].of) if one else style.INK
        off = bool(upward.beyond(valued[studies[0].objectives[0]]).any() or across.beyond(second).any())
        legend(figure, colour, valued, off, [Line2D([], [], color=colour, label="Pareto front")])
    return figure


def _panel(axes: Axes, study: Study, across: off_scale.Axis, upward: off_scale.Axis) -> None:
    shown, (first, second) = _valued(study), study.objectives
    x, y = shown[second].to_numpy(float), shown[first].to_numpy(float)
    right, over = across.beyond(x), upward.beyond(y)
    on = front(study).loc[shown.index].to_numpy()
    order = np.argsort(x[on])
    # What a point reaches is reached from there on towards the worse side of the second objective.
    axes.plot(x[on][order], y[on][order], color=style.colour(study.of), linewidth=1.1,
              drawstyle="steps-pre" if study.maximise[1] else "steps-post")  # fmt: skip
    arrows = [off_scale.arrow(upward) if above else off_scale.arrow(across, vertical=False) for above in over]
    scatter(axes, study, shown, across.places(x), upward.places(y), right | over, arrows)
