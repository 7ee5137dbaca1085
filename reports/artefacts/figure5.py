"""Figure 5: learning curves of both levels."""

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from reports import paper, statistics, style, terms
from reports.artefact import Artefact
from reports.methods import Method, of_variants, order, titles
from reports.style import Look, natural
from reports.sweep import Sweep

_HIGHER = {"train/objective": "training objective", "val/objective": "validation objective"}
_LOWER = {
    "train/lower_objective": "divergence up to a constant (training)",
    "val/lower_objective": "divergence up to a constant (validation)",
    "val/posterior_fisher_divergence": "Fisher divergence of the posterior (validation)",
    "test/posterior_fisher_divergence": "Fisher divergence of the posterior (test)",
}
_ABREAST = 3  # methods: of more the curves are too narrow to be read
_ROW, _TALLEST = 1.4, 8.0  # inches of a row of panels; of all rows at most
_AROUND = 0.7  # inches of titles and labels of a band
_FAR = 2.0  # times what most values span: a curve that ends farther away would flatten the others
_LABELS = {
    name: f"{level} level:\n{textwrap.fill(text, 20)}"
    for level, texts in (("higher", _HIGHER), ("lower", _LOWER))
    for name, text in texts.items()
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Of each task that a bi-level method was trained on."""
    for task in sweep.tasks:
        parts = []
        for metric in _LABELS:
            curves = sweep.curves(task, metric)
            bilevel = curves[curves["variant"].map(of_variants(curves)).map(_is_bilevel).astype(bool)]
            along = bilevel[bilevel["step"] > 0]
            if along.groupby("run")["step"].nunique().max() > 1:  # one value makes no curve
                parts.append(along.assign(metric=metric))
        if not parts:
            continue
        values = pd.concat(parts).dropna(subset=["value"])
        if values.empty:
            continue
        numbers = statistics.bands(values, ("metric", "variant"))
        levels = [level for level, names in (("higher", _HIGHER), ("lower", _LOWER))
                  if values["metric"].isin(list(names)).any()]  # fmt: skip
        of = "both levels" if len(levels) == 2 else f"the {levels[0]} level"
        method = of_variants(sweep.of(task, None))
        figure, cut, outside = draw(values, method)
        missing = len(sweep.missing(task))
        yield Artefact(
            name=f"figure5-{task}",
            title=paper.title(5, sweep.suite, task, f"learning curves of {of}"),
            caption=f"Objectives of {of} of the bi-level methods against iterations: "
            f"{terms.mean_of(values)}. "
            + ("Values far from most others, as those of first iterations are, lie outside the panels with a linear "
               "axis. " if cut else "")
            + (f"Outside them end {'; '.join(outside)}. " if outside else "")
            + "Objectives of different methods are on different scales and are not to be compared."
            + style.whose(method)
            + (" Of the posterior's divergence KL(q(h|v) || p(h|v)) the part that depends on the posterior is shown: "
               "log p(v) is not known and left out, so that it may be negative, and drifts with the model."
               if values["metric"].str.endswith("lower_objective").any() else "")
            + (" The paper's Figure 5 shows the Fisher divergence of the posterior falling from between 10⁴ and 10⁵ to "
               "between 10 and 100 on MNIST and CIFAR-10." if "lower" in levels else
               " The lower level was not recorded in these runs."),
            alt=f"Learning curves of {of}: " + ", ".join(sorted(values["variant"].unique(), key=natural)) + ".",
            numbers=numbers,
            runs=list(values["run"].unique()),
            missing=missing,
            figure=style.mark(figure, missing),
        )  # fmt: skip


def draw(values: pd.DataFrame, method: Mapping[str, Method]) -> tuple[Figure, bool, list[str]]:
    """Bands of a few methods: in each a row for every quantity that was measured, and a column for every method, since
    their scales have nothing in common.

    Args:
        method: of every variant of the task.

    Returns:
        The figure, whether values lie outside its panels, and the means that end there.
    """
    present = [metric for metric in _LABELS if (values["metric"] == metric).any()]
    methods = sorted({method[variant] for variant in values["variant"].unique()}, key=order)
    looks, named, cut, outside = style.looks(method), titles(methods), False, list[str]()
    bands = [methods[first : first + _ABREAST] for first in range(0, len(methods), _ABREAST)]
    abreast, columns = len(bands[0]), 1 if len(methods) > 1 else 3
    with style.look():
        rows = min(_ROW * len(present), _TALLEST / len(bands))
        heights = [rows + _AROUND + _legends(values, band, columns, style.TEXT_WIDTH / abreast) for band in bands]
        figure = Figure(figsize=(style.TEXT_WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(bands), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, band in zip(parts, bands, strict=True):
            panels = part.subplots(len(present), abreast, sharex=True, squeeze=False)
            for row, metric in zip(panels, present, strict=True):
                row[0].set_ylabel(_LABELS[metric], fontsize=6.5)
                for axes, of in itertools.zip_longest(row, band):
                    mine = values["method"] == (of.id if of else "")
                    left_out, ends = _panel(axes, values[(values["metric"] == metric) & mine], looks)
                    cut |= left_out
                    outside += [f"{variant} at {terms.number(end)}" for variant, end in ends.items()]
            for axes, of in zip(panels[0], band, strict=False):
                axes.set_title(named[of.id])
            for axes in panels[-1, : len(band)]:
                style.thousands(axes.xaxis)
                axes.set_xlabel("iteration")
                style.legend_below(axes, columns)
    return figure, cut, outside


def _legends(values: pd.DataFrame, band: Sequence[Method], columns: int, room: float) -> float:
    """Inches of the tallest legend of these methods' variants, each in a panel of this width."""
    names = [list(values.loc[values["method"] == of.id, "variant"].unique()) for of in band]
    return max(style.legend_height(one, room, columns) for one in names)


def _is_bilevel(method: Method) -> bool:
    return method.family == "Bi-level score matching"


def _panel(axes: Any, cells: pd.DataFrame, looks: Mapping[str, Look]) -> tuple[bool, dict[str, float]]:
    """Draws a method's variants; whether values are left out, and the ends of means that are."""
    ends = dict[str, float]()
    if cells.empty:
        axes.set_axis_off()
        return False, ends
    present = sorted(cells["variant"].unique(), key=natural)
    for place, variant in enumerate(present):
        summary, look = statistics.bands(cells[cells["variant"] == variant]), looks[variant]
        every = max(1, len(summary) // 6)
        mean, half_width = summary["mean"], summary["half_width"].fillna(0.0)
        axes.fill_between(summary["step"], mean - half_width, mean + half_width, color=look.colour, alpha=0.2,
                          linewidth=0, gid=f"_{variant}")  # fmt: skip
        marked = (place * every // len(present), every)
        axes.plot(summary["step"], mean, **look.line, label=variant, markevery=marked)
        ends[variant] = float(mean.iloc[-1])
    low, high = (float(cells["value"].quantile(share)) for share in (0.02, 0.98))
    if cells["value"].min() > 0 and high > 20 * low:
        axes.set_yscale("log")
        return False, {}
    pad = 0.15 * (high - low) + 1e-9
    near = [end for end in ends.values() if low - _FAR * (high - low) <= end <= high + _FAR * (high - low)]
    low, high = min([low, *near]) - pad, max([high, *near]) + pad  # the first iterations are far from all others
    axes.set_ylim(low, high)
    outside = {variant: end for variant, end in ends.items() if not low <= end <= high}
    return bool(((cells["value"] < low) | (cells["value"] > high)).any()), outside
