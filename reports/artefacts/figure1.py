"""Figure 1: the bias of the bi-level gradient against N and K, and Theorem 2's rate."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.measures.decay import decay_rate
from reports import paper, style, terms
from reports.artefact import Artefact, Table
from reports.sweep import Sweep

_STUDIES = {
    "theorem2": "Theorem 2: gradient descent, KL in closed form",
    "practical": "as trained: Adam, relaxed samples",
}
_POINT = re.compile(r"bias/(theorem2|practical)_(floor_)?K(\d+)_N(\d+)")
_OURS = re.compile(r"bias/(theorem2|practical)_")
_START = re.compile(r"bias/(theorem2|practical)_distance_K(\d+)")
_GRADIENT = re.compile(r"bias/(theorem2|practical)_gradient")
_ALL, _TAIL = 1, 10  # first N that a rate is fitted to; the last is 40 (``decay_rate``)


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Of each task on which the bias was measured: the curves, the rates and the distances."""
    for task in sweep.tasks:
        names = [str(name) for name in sweep.of(task) if _OURS.match(str(name))]
        if not names:
            continue
        values = pd.concat([sweep.curves(task, name).assign(metric=name) for name in names])
        points, missing = bias_points(values), len(sweep.missing(task))
        runs, rates = list(values["run"].unique()), rate_table(points)
        yield Artefact(
            name=f"figure1-{task}",
            title=paper.title(1, sweep.suite, task, "bias of the gradient against N and K"),
            caption="Norm of (gradient after N unrolled steps − true gradient) on models along a training, seed "
            f"{values['seed'].min()}. Above: gradient descent on the KL divergence in closed form, which Theorem 2 "
            "is about; below: as the methods train, where dotted lines are what the draws' noise alone would show. The "
            "dash-dotted line is the norm of the true gradient itself. Curves that coincide lie over each other, thin "
            f"on thick. {f'Dashed: the exponential fitted to N ≥ {_TAIL}, drawn from N = 0. ' if len(rates) else ''}"
            "The paper's Figure 1 shows a decay that is exponential in N and prints no numbers for it.",
            alt="Bias of the gradient on a logarithmic axis, falling with N, a curve for each K.",
            numbers=points,
            runs=runs,
            missing=missing,
            figure=style.mark(draw(points, rates), missing),
        )
        if len(rates):
            yield Artefact(
                name=f"figure1-rates-{task}",
                title=f"Factor per unrolled step ({task})",
                caption="Under gradient descent the bias shrinks by about this factor with every unrolled step. Each "
                f"is the slope of log bias against N, by least squares over N from {_ALL} or from {_TAIL} to "
                f"{points['N'].max()}; R² says how straight the points are. Where R² over N ≥ {_ALL} is far below 1 "
                "the decay is no single exponential: steep at first, and slower in the tail.",
                numbers=rates,
                runs=runs,
                missing=missing,
                table=Table(rates[["iteration", "K", *_columns(_ALL), *_columns(_TAIL)]], _RATE_FORMATS),
            )
        distances = distance_table(values)
        if len(distances):
            yield Artefact(
                name=f"figure1-distances-{task}",
                title=f"Distance of the posterior to its optimum ({task})",
                caption="‖φ⁰ − φ*‖ after K inner steps. The paper prints two of these and does not say at which "
                "model they were measured: they are a comparison and no target.",
                numbers=distances,
                runs=runs,
                missing=missing,
                table=Table(distances, {"distance": "{:.3f}", "paper": "{:.2f}", "iteration": "{:,.0f}"}),
            )


def bias_points(values: pd.DataFrame) -> pd.DataFrame:
    """study, step, K, N, bias, noise_floor, norm of the true gradient; mean over seeds."""
    rows = []
    for row in values.to_dict("records"):
        found = _POINT.fullmatch(row["metric"])
        if found:
            study, floor, k, n = found.groups()
            rows.append({"study": study, "step": row["step"], "K": int(k), "N": int(n),
                         "kind": "noise_floor" if floor else "bias", "value": row["value"]})  # fmt: skip
    table = pd.DataFrame(rows).pivot_table(index=["study", "step", "K", "N"], columns="kind", values="value")
    table = table.reset_index().rename_axis(columns=None)
    norms = values.assign(study=values["metric"].str.extract(f"^{_GRADIENT.pattern}$", expand=False))
    return table.merge(norms.groupby(["study", "step"])["value"].mean().rename("true_gradient").reset_index(),
                       on=["study", "step"], how="left")  # fmt: skip


def _columns(first: int) -> tuple[str, str]:
    return f"factor, N ≥ {first}", f"R², N ≥ {first}"


_RATE_FORMATS = {"iteration": "{:,.0f}"} | {
    name: text for first in (_ALL, _TAIL) for name, text in zip(_columns(first), ("{:.4f}", "{:.3f}"), strict=True)
}


def rate_table(points: pd.DataFrame) -> pd.DataFrame:
    """iteration, K, and of the fit to all points and of that to the tail: factor, R², slope and where it starts."""
    rows = []
    for (step, k), curve in points[points["study"] == "theorem2"].groupby(["step", "K"]):
        if (curve["N"] >= _TAIL).sum() < 3 or not (curve["bias"] > 0).all():
            continue
        row = {"iteration": step, "K": k}
        for first in (_ALL, _TAIL):
            rate, fitted = decay_rate(list(curve["N"]), list(curve["bias"]), first=first), curve[curve["N"] >= first]
            fitted = fitted[fitted["N"] <= rate.last]
            factor, straight = _columns(first)
            row |= {factor: rate.kappa, straight: np.corrcoef(fitted["N"], np.log(fitted["bias"]))[0, 1] ** 2}
            row[f"bias at N = 0, N ≥ {first}"] = float(
                np.exp(np.log(fitted["bias"]).mean() - rate.slope * fitted["N"].mean())
            )
        rows.append(row)
    return pd.DataFrame(rows)


def distance_table(values: pd.DataFrame) -> pd.DataFrame:
    """study, iteration, K, distance, and what the paper prints."""
    rows = []
    for row in values.to_dict("records"):
        found = _START.fullmatch(row["metric"])
        if found:
            rows.append({"study": found[1], "iteration": row["step"], "K": int(found[2]), "distance": row["value"],
                         "paper": paper.FIGURE1_DISTANCE.get(int(found[2]))})  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.sort_values(["study", "iteration", "K"], ignore_index=True) if len(frame) else frame


def draw(points: pd.DataFrame, rates: pd.DataFrame) -> Figure:
    """A row of panels for each study, a panel for each iteration, a curve for each K."""
    studies = [name for name in _STUDIES if (points["study"] == name).any()]
    steps = sorted(points["step"].unique())
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.1 * len(studies) + 0.2), layout="constrained")
        panels = figure.subplots(len(studies), len(steps), sharex=True, sharey="row", squeeze=False)
        for row, study in zip(panels, studies, strict=True):
            of_study = points[points["study"] == study]
            for axes, step in zip(row, steps, strict=True):
                _panel(axes, of_study[of_study["step"] == step])
                if study == "theorem2" and len(rates):
                    _fits(axes, rates[rates["iteration"] == step], of_study["N"].max())
                axes.set_title(f"iteration {terms.number(step)}")
            row[0].set_ylabel(_STUDIES[study].replace(": ", ":\n"), fontsize=6.5)
            if of_study["bias"].max() < 1000 * of_study["bias"].min():
                style.plain(row[0].yaxis)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
        for axes in panels[-1]:
            axes.set_xlabel("unrolled steps N")
        figure.supylabel("norm of the gradient's bias", fontsize=8)
    return figure


def _panel(axes: Any, points: pd.DataFrame) -> None:
    axes.set_yscale("log")
    all_k = sorted(points["K"].unique())
    for place, k in enumerate(all_k):
        curve = points[points["K"] == k].sort_values("N")
        colour, marker = style.steps(int(k))
        over = len(all_k) - place  # the first is the thickest and the lowest
        axes.plot(curve["N"], curve["bias"], color=colour, marker=marker, markersize=2 + 0.8 * over,
                  linewidth=0.4 + 0.4 * over, label=f"K = {k}")  # fmt: skip
        if "noise_floor" in curve and (curve["noise_floor"] > 0).any():
            axes.plot(curve["N"], curve["noise_floor"], color=colour, linestyle=":")
    if points["true_gradient"].notna().any():
        axes.axhline(points["true_gradient"].mean(), color=style.INK, linestyle="-.", linewidth=0.8,
                     label="true gradient")  # fmt: skip


def _fits(axes: Any, rates: pd.DataFrame, last: int) -> None:
    factor, start = _columns(_TAIL)[0], f"bias at N = 0, N ≥ {_TAIL}"
    n = np.array([0, last])
    for place, row in enumerate(rates.to_dict("records")):
        label = None if place else f"fitted to N ≥ {_TAIL}"
        axes.plot(n, row[start] * row[factor] ** n, color=style.INK, linestyle="--", linewidth=0.6, label=label)
