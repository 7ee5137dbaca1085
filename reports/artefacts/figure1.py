"""Figure 1: the bias of the bi-level gradient against N and K, and Theorem 2's rate."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import paper, style
from reports.artefact import Artefact, Table
from reports.sweep import Sweep

_STUDIES = {
    "theorem2": "Theorem 2: gradient descent, KL in closed form",
    "practical": "as trained: Adam, relaxed samples",
}
_POINT = re.compile(r"bias/(theorem2|practical)_(floor_)?K(\d+)_N(\d+)")
_START = re.compile(r"bias/(theorem2|practical)_distance_K(\d+)")
_RATE = re.compile(r"bias/theorem2_kappa_K(\d+)(_low|_high)?")


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Of each task on which the bias was measured: the curves, the rates and the distances."""
    for task in sweep.tasks:
        names = [str(name) for name in sweep.of(task) if str(name).startswith("bias/")]
        if not names:
            continue
        values = pd.concat([sweep.curves(task, name).assign(metric=name) for name in names])
        points, missing = bias_points(values), len(sweep.missing(task))
        runs = list(values["run"].unique())
        yield Artefact(
            name=f"figure1-{task}",
            title=f"Figure 1: bias of the gradient against N and K ({task})",
            caption="Norm of (gradient after N unrolled steps - true gradient) on models along a training, seed "
            f"{values['seed'].min()}. Above: gradient descent on the KL divergence in closed form, which Theorem 2 is "
            "about; below: as the methods train, where dotted lines are what the draws' noise alone would show. The "
            "paper's Figure 1 shows a decay that is exponential in N and prints no numbers for it.",
            alt="Bias of the gradient on a logarithmic axis, falling with N, a curve for each K.",
            numbers=points,
            runs=runs,
            missing=missing,
            figure=style.mark(draw(points), missing),
        )
        rates = rate_table(values)
        if len(rates):
            yield Artefact(
                name=f"figure1-rates-{task}",
                title=f"Factor per unrolled step ({task})",
                caption="Fitted to N >= 1 under gradient descent: the bias shrinks by this factor with every unrolled "
                "step; 95% interval.",
                numbers=rates,
                runs=runs,
                missing=missing,
                table=Table(rates, {"factor": "{:.4f}", "low": "{:.4f}", "high": "{:.4f}", "step": "{:,.0f}"}),
            )
        distances = distance_table(values)
        if len(distances):
            yield Artefact(
                name=f"figure1-distances-{task}",
                title=f"Distance of the posterior to its optimum ({task})",
                caption="||phi^0 - phi*|| after K inner steps. The paper prints two of these and does not say at which "
                "model they were measured: they are a comparison and no target.",
                numbers=distances,
                runs=runs,
                missing=missing,
                table=Table(distances, {"distance": "{:.3f}", "paper": "{:.2f}", "step": "{:,.0f}"}),
            )


def bias_points(values: pd.DataFrame) -> pd.DataFrame:
    """study, step, K, N, bias, noise_floor; mean over seeds."""
    rows = []
    for row in values.to_dict("records"):
        found = _POINT.fullmatch(row["metric"])
        if found:
            study, floor, k, n = found.groups()
            rows.append({"study": study, "step": row["step"], "K": int(k), "N": int(n),
                         "kind": "noise_floor" if floor else "bias", "value": row["value"]})  # fmt: skip
    table = pd.DataFrame(rows).pivot_table(index=["study", "step", "K", "N"], columns="kind", values="value")
    return table.reset_index().rename_axis(columns=None)


def rate_table(values: pd.DataFrame) -> pd.DataFrame:
    """step, K, factor, low, high."""
    rows = []
    for row in values.to_dict("records"):
        found = _RATE.fullmatch(row["metric"])
        if found:
            kind = {"_low": "low", "_high": "high"}.get(found[2] or "", "factor")
            rows.append({"step": row["step"], "K": int(found[1]), "kind": kind, "value": row["value"]})
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).pivot_table(index=["step", "K"], columns="kind", values="value").reset_index()
    return table.rename_axis(columns=None)[["step", "K", "factor", "low", "high"]]


def distance_table(values: pd.DataFrame) -> pd.DataFrame:
    """study, step, K, distance, and what the paper prints."""
    rows = []
    for row in values.to_dict("records"):
        found = _START.fullmatch(row["metric"])
        if found:
            rows.append({"study": found[1], "step": row["step"], "K": int(found[2]), "distance": row["value"],
                         "paper": paper.FIGURE1_DISTANCE.get(int(found[2]))})  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.sort_values(["study", "step", "K"], ignore_index=True) if len(frame) else frame


def draw(points: pd.DataFrame) -> Figure:
    """A row of panels for each study, a panel for each iteration, a curve for each K."""
    studies = [name for name in _STUDIES if (points["study"] == name).any()]
    steps = sorted(points["step"].unique())
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.1 * len(studies) + 0.2), layout="constrained")
        panels = figure.subplots(len(studies), len(steps), sharex=True, sharey="row", squeeze=False)
        for row, study in zip(panels, studies, strict=True):
            of_study = points[points["study"] == study]
            all_k = sorted(of_study["K"].unique())
            for axes, step in zip(row, steps, strict=True):
                _panel(axes, of_study[of_study["step"] == step], all_k)
                axes.set_title(f"iteration {step:,}")
            row[0].set_ylabel(_STUDIES[study].replace(": ", ":\n"), fontsize=6.5)
            row[-1].legend(title="K", ncols=2)
        figure.supxlabel("unrolled steps N", fontsize=8)
        figure.supylabel("norm of the gradient's bias", fontsize=8)
    return figure


def _panel(axes: Any, points: pd.DataFrame, all_k: list[int]) -> None:
    import matplotlib as mpl

    shades = mpl.colormaps["plasma"](np.linspace(0.15, 0.75, len(all_k)))
    for shade, k in zip(shades, all_k, strict=True):
        curve = points[points["K"] == k].sort_values("N")
        if curve.empty:
            continue
        axes.semilogy(curve["N"], curve["bias"], color=shade, marker="o", markersize=2.5, label=f"{k}")
        if "noise_floor" in curve and (curve["noise_floor"] > 0).any():
            axes.semilogy(curve["N"], curve["noise_floor"], color=shade, linestyle=":")
