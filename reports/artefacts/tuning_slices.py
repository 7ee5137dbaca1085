"""The objective against each hyper-parameter, a panel each."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports import off_scale, style, terms
from reports.artefact import Artefact
from reports.studies import Studies, Study, basis

_COLUMNS = 4
_FIRST = ("lr_posterior", "lr", "inner_steps", "unroll_steps", "sigma")  # the order of panels
_LETTERS = 18  # in a line of a panel's label
_MANY = 150  # trials, beyond which markers are faint
MARKER = "o"  # of trials: hollow ones of other shapes are hard to tell from filled ones
PAPER: dict[str, Any] = {"color": style.INK, "marker": "*", "markersize": 8, "markeredgewidth": 0.7}


def build(studies: Studies) -> Iterator[Artefact]:
    """One for each study with a trial that has a value."""
    for task in studies.tasks:
        count = Counter[str]()
        for study in studies.of(task):
            figure = draw(study)
            if figure is None:
                continue
            symbols = {name: terms.symbol(name, study.symbols) for name in panels(study)}
            shown, best, label = drawn(study), study.best(), study.label
            count[study.method] += 1
            again = f"-{count[study.method]}" if count[study.method] > 1 else ""
            yield Artefact(
                name=f"slices-{study.method}-{task}{again}",
                title=f"{label}: the objective against each hyper-parameter ({task})",
                caption=f"{basis([study])}. Each trial is in every panel. Filled: trained to the end; hollow: pruned, "
                "with its last value before that, after fewer iterations; stars: the preset's values; the ring: the "
                "best. Triangles stand at the edge for values beyond it.",
                alt=f"{terms.capital(terms.measure(study.objective))} of {terms.counted(len(shown), 'trial')} of "
                f"{label} against {', '.join(symbols.values())}"
                + ("" if best is None else "; the best at " + ", ".join(
                    f"{symbol} = {terms.setting(best[f'param.{name}'])}" for name, symbol in symbols.items())) + ".",
                numbers=study.trials,
                runs=list(shown["run"]),
                figure=figure,
            )  # fmt: skip


def panels(study: Study) -> list[str]:
    """The hyper-parameters that were searched, in the order of their panels."""
    known = list(study.space) or [str(name)[6:] for name in study.trials if str(name).startswith("param.")]
    return sorted(known, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def drawn(study: Study) -> pd.DataFrame:
    """The trials that have a value, or had one when they were pruned."""
    trials = study.trials
    pruned = (trials["state"] == "pruned") & trials["iteration"].notna()
    return trials[pruned | (trials["state"] == "complete")]


def draw(study: Study) -> Figure | None:
    """The panels; None where nothing can be drawn."""
    shown, names = drawn(study), panels(study)
    complete = shown["state"] == "complete"
    values = shown[study.objective].astype(float)
    axis = off_scale.axis(values[complete], values[~complete], study.maximise[0])
    if axis is None or not names:
        return None
    rows, columns = math.ceil(len(names) / _COLUMNS), min(len(names), _COLUMNS)
    with style.look():
        width = max(style.COLUMN_WIDTH, style.TEXT_WIDTH * columns / _COLUMNS)
        figure = Figure(figsize=(width, 1.85 * rows + 0.5), layout="constrained")
        figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, name in zip(figure.axes, names, strict=False):
            _panel(axes, study, shown, axis, name)
        style.leave(figure, len(names), columns)
        figure.axes[0].set_ylim(axis.low, axis.high)
        figure.supylabel(terms.measure(study.objective), fontsize=8)
        legend(figure, style.colour(study.of), shown, bool(axis.beyond(values).any()))
    return figure


def _panel(axes: Axes, study: Study, shown: pd.DataFrame, axis: off_scale.Axis, name: str) -> None:
    searched, found = study.space.get(name, {}), shown[f"param.{name}"]
    has, x = found.notna().to_numpy(), places(found, searched)
    if "choices" in searched:
        labels = [terms.setting(choice) for choice in searched["choices"]]
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.5, len(labels) - 0.5)
    elif searched.get("log"):
        axes.set_xscale("log")
        if searched["high"] < 50 * searched["low"]:
            style.plain(axes.xaxis)
    elif searched.get("type") == "int":
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if "low" in searched:
        _show(axes, np.append(x[has], [searched["low"], searched["high"]]))
    said, letter = terms.hyperparameter(name, study.symbols), terms.symbol(name, study.symbols)
    bound = said.removesuffix(f" {letter}") + f"\u00a0{letter}" if said.endswith(f" {letter}") else said
    axes.set_xlabel(textwrap.fill(bound, _LETTERS))  # the letter is never alone in a line
    scatter(axes, study, shown[has], x[has], axis.places(shown[study.objective].astype(float))[has],
            axis.beyond(shown[study.objective].astype(float))[has], off_scale.arrow(axis))  # fmt: skip


def _show(axes: Axes, values: np.ndarray) -> None:
    """The axis shows all that was searched, and the preset's values where they lie outside of it."""
    log = axes.get_xscale() == "log"
    low, high = (np.log(values) if log else values).min(), (np.log(values) if log else values).max()
    pad = 0.06 * (high - low)
    axes.set_xlim(*(np.exp([low - pad, high + pad]) if log else (low - pad, high + pad)))


def places(found: pd.Series, searched: Mapping[str, Any]) -> np.ndarray:
    """Where the values of a hyper-parameter stand: numbers at their own place, choices side by side."""
    if "choices" in searched:
        choices = list(searched["choices"])
        return np.array([choices.index(value) if value in choices else math.nan for value in found], dtype=float)
    return np.array([value if isinstance(value, (int, float)) else math.nan for value in found], dtype=float)


def scatter(axes: Axes, study: Study, trials: pd.DataFrame, x: np.ndarray, y: np.ndarray, off: np.ndarray,
            arrows: str | Sequence[str]) -> None:  # fmt: skip
    """Trials as points: those at the edge as triangles, the preset's as stars above all others, the best in a ring."""
    colour, marker = style.colour(study.of), MARKER
    complete, papers = (trials["state"] == "complete").to_numpy(), (trials["origin"] == "paper").to_numpy()
    pointing = np.array([arrows] * len(trials) if isinstance(arrows, str) else list(arrows))
    faint = 0.75 if len(trials) <= _MANY else 0.4
    for filled in (False, True):
        face = colour if filled else "none"
        plain = (complete == filled) & ~papers
        axes.plot(x[plain & ~off], y[plain & ~off], linestyle="", color=colour, marker=marker, markerfacecolor=face,
                  alpha=faint, markeredgewidth=0.7)  # fmt: skip
        for kind in np.unique(pointing[plain & off]):
            here = plain & off & (pointing == kind)
            axes.plot(x[here], y[here], linestyle="", color=colour, marker=kind, markerfacecolor=face, alpha=faint,
                      markeredgewidth=0.7, clip_on=False)  # fmt: skip
        own = (complete == filled) & papers
        axes.plot(x[own], y[own], linestyle="", markerfacecolor=style.INK if filled else "none", zorder=4, **PAPER)
    best = study.best()
    if best is not None:
        here = (trials["trial"] == best["trial"]).to_numpy()
        axes.plot(x[here], y[here], linestyle="", marker="o", markersize=11, markerfacecolor="none",
                  markeredgecolor=style.INK, markeredgewidth=0.9, zorder=5, clip_on=False)  # fmt: skip


def legend(figure: Figure, colour: str, shown: pd.DataFrame, off: bool, more: Sequence[Any] = ()) -> None:
    """Under the figure, what its marks mean: those that occur."""
    none: dict[str, Any] = {"linestyle": "", "markeredgewidth": 0.7}
    handles = [Line2D([], [], color=colour, marker=MARKER, label="complete", **none)]
    if (shown["state"] == "pruned").any():
        handles.append(Line2D([], [], color=colour, marker=MARKER, markerfacecolor="none", label="pruned", **none))
    if off:
        handles.append(Line2D([], [], color=colour, marker="v", label="beyond the edge", **none))
    if (shown["origin"] == "paper").any():
        handles.append(Line2D([], [], label="preset's values", linestyle="", **PAPER))
    if (shown["state"] == "complete").any():
        handles.append(Line2D([], [], color=style.INK, marker="o", markersize=8, markerfacecolor="none", label="best",
                              linestyle="", markeredgewidth=0.9))  # fmt: skip
    handles += more
    columns = len(handles) if figure.get_figwidth() > style.COLUMN_WIDTH * 1.5 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.5)
