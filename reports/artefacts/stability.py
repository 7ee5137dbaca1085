"""Which methods diverge, at which settings and when, beside what says how stable the others are."""

import math
import re
from collections.abc import Iterator

import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, variants

_METRICS = {  # metric -> column
    "stability/energy_gap": "energy gap",
    "stability/slope_of_data": "slope at data",
    "stability/slope_of_samples": "slope at samples",
    "stability/loss_gradient": "gradient of the loss",
    "stability/largest_singular_value": "largest singular value",
}
_AWAY, _LIKELIHOOD = "ran away", "test/log_likelihood"
_STEP = re.compile(r"not finite at step (\d+)")
_FORMATS = dict.fromkeys(_METRICS.values(), "{:,.3g}") | dict.fromkeys(("first step", "last step"), "{:,.0f}")


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task of which a seed diverged or ran away, or the probe ``stability`` was taken."""
    for task in sweep.tasks:
        frame = stability(sweep, task)
        if frame.empty:
            continue
        ended = sweep.of(task, None)
        gone, measured = int(frame["diverged"].sum()), [one for one in _METRICS.values() if one in frame]
        said = (f"{terms.counted(gone, 'seed')} became not finite, a result of the method at these settings; at the "
                "steps from the first to the last." if gone else "No seed became not finite.")  # fmt: skip
        away = int(frame[_AWAY].sum()) if _AWAY in frame else 0
        said += (f" {terms.counted(away, 'seed')} ran away: finite to the end, where the test log-likelihood is below "
                 "what the untrained model had." if away else "")  # fmt: skip
        meaning = (" The rest are means over the seeds that are done, where the probe was taken last: the energy gap "
                   "is mean F of test data less that of the method's samples (nats), slopes are mean |dF/dv|, singular "
                   "values those of weights as they are used.") if measured else ""  # fmt: skip
        yield Artefact(
            name=f"stability-{task}",
            title=f"What diverged, and how stable the rest is ({task})",
            caption=said + meaning,
            numbers=frame,
            runs=[run for run in ended[ended["variant"].isin(frame["variant"])]["run"] if run],
            missing=len(sweep.missing(task)),
            table=Table(frame, {name: text for name, text in _FORMATS.items() if name in frame}),
        )


def stability(sweep: Sweep, task: str) -> pd.DataFrame:
    """One row per variant of which a seed diverged or ran away, or stability was measured; no row where none was."""
    cells, rows, away = sweep.of(task, None), [], ran_away(sweep, task)
    for variant in variants(cells):
        of_variant = cells[cells["variant"] == variant]
        gone, done = (of_variant[of_variant["state"] == state] for state in ("diverged", "done"))
        means = {label: done[metric].mean() for metric, label in _METRICS.items() if metric in done}
        runaways = int(done["run"].isin(away).sum())
        if gone.empty and not runaways and not any(pd.notna(value) for value in means.values()):
            continue
        steps = [int(found[1]) for text in gone["error"] if (found := _STEP.search(str(text)))]
        row: dict[str, object] = {"variant": variant, "seeds": len(gone) + len(done), "diverged": len(gone)}
        if away:
            row[_AWAY] = runaways
        first_and_last = {"first step": min(steps, default=math.nan), "last step": max(steps, default=math.nan)}
        rows.append(row | first_and_last | means)
    frame = pd.DataFrame(rows)
    return frame.dropna(axis="columns", how="all")


def ran_away(sweep: Sweep, task: str) -> set[str]:
    """The runs that are done and whose test log-likelihood is below that of step 0 when it is measured last."""
    curves = sweep.curves(task, _LIKELIHOOD).sort_values("step")
    begun = curves[curves["step"] == 0].set_index("run")["value"]
    ended = curves.groupby("run").tail(1).set_index("run")
    ended = ended[(ended["step"] > 0) & ended.index.isin(begun.index)]
    return set(ended.index[~(ended["value"] >= begun[ended.index])])
