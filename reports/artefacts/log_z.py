"""How near to log Z the bounds are that learnt samplers train by."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from reports import style, terms
from reports.artefact import Artefact, Table, fixed
from reports.methods import Method, of_variants
from reports.statistics import counts, interval
from reports.sweep import Sweep, selected, variants

_GAP, _UNITS = "log_z/gap", "visible units"
_VISIBLE = "param.model_visible"  # of images a shape, and of old runs nothing
_BOUNDS = {"upper": "log_z/upper", "lower": "log_z/lower"}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """A table of all tasks where bounds of log Z were measured, and a figure where v is of several sizes."""
    done = pd.concat([sweep.of(task) for task in sweep.tasks]) if sweep.tasks else pd.DataFrame()
    if not any(name in done and done[name].notna().any() for name in _BOUNDS.values()):
        return
    frame, missing = gaps(sweep), len(sweep.missing())
    drawn = frame[frame["gap"].notna() & (frame[_UNITS] > 0)]
    several = drawn[_UNITS].nunique() > 1
    method = of_variants(done)
    yield Artefact(
        name="log-z-bounds",
        title="Bounds of log Z that are learnt",
        caption="Means over seeds and 95% intervals (Student's t) at the last iteration, in nats. Gap: NVIL's upper "
        "bound less log Z, from exact samples of the model, since those of the proposal do not show what it has "
        "missed; log Z less AdVIL's lower bound. Samples' share: (sum w)² / (n sum w²) of the proposal's n samples, 1 "
        "where it is the model." + (" Shown against the number of visible units." if several else ""),
        alt="; ".join(f"{row['variant']} with {row[_UNITS]:.0f} visible units: gap {terms.number(row['gap'])}"
                      for row in drawn.to_dict("records")) + ".",
        numbers=frame,
        runs=list(done["run"]),
        missing=missing,
        figure=style.mark(draw(drawn, method), missing) if several else None,
        table=Table(frame, _formats(frame), {"gap": ""}, frame["± 95%"]),
    )  # fmt: skip


def gaps(sweep: Sweep) -> pd.DataFrame:
    """A row for each task and variant, means over seeds."""
    rows = []
    for task in sweep.tasks:
        cells = sweep.of(task)
        for variant in variants(cells):
            mine = cells[cells["variant"] == variant]
            kind = next((kind for kind, name in _BOUNDS.items() if name in mine and mine[name].notna().any()), None)
            if kind is None:
                continue
            gap, half_width = interval(selected(mine, _GAP))
            rows.append(
                {
                    "task": task,
                    "variant": variant,
                    _UNITS: float(counts(mine[_VISIBLE]).iloc[0]) if _VISIBLE in mine else math.nan,
                    "seeds": len(mine),
                    "log Z": selected(mine, "log_z/exact").mean(),
                    "bound": selected(mine, _BOUNDS[kind]).mean(),
                    "kind": kind,
                    "gap": gap,
                    "± 95%": half_width,
                    "samples' share": selected(mine, "log_z/effective_samples").mean(),
                }
            )
    return pd.DataFrame(rows)


def _formats(frame: pd.DataFrame) -> dict[str, str]:
    share = fixed(frame["samples' share"].dropna(), 2)
    return {_UNITS: "{:.0f}", "log Z": "{:.2f}", "bound": "{:.2f}", "± 95%": "{:.2g}", "samples' share": share}


def draw(frame: pd.DataFrame, method: dict[str, Method]) -> Figure:
    """The gap against the number of visible units, a curve for each variant."""
    with style.look():
        figure = Figure(figsize=(style.COLUMN_WIDTH, 2.6), layout="constrained")
        axes: Any = figure.add_subplot()
        for place, (variant, curve) in enumerate(frame.groupby("variant", sort=False)):
            curve = curve.sort_values(_UNITS)
            colour, marker = style.series(place)
            axes.errorbar(
                curve[_UNITS], curve["gap"], curve["± 95%"].fillna(0), color=colour, marker=marker, label=variant
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(frame[_UNITS].unique()), [f"{units:.0f}" for units in sorted(frame[_UNITS].unique())])
        axes.minorticks_off()
        axes.set_xlabel("visible units")
        axes.set_ylabel("|bound − log Z|, nats")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.legend()
    return figure
