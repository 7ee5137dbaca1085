"""Which methods diverge, at which settings and when, beside what says how stable the others are."""

import math
import re
from collections.abc import Iterator

import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, below_start, variants

_METRICS = {  # metric -> column
    "stability/energy_gap": "energy gap",
    "stability/slope_of_data": "slope at data",
    "stability/slope_of_samples": "slope at samples",
    "stability/loss_gradient": "gradient of the loss",
    "stability/largest_singular_value": "largest singular value",
}
_FALLEN = "below start"
_STEP = re.compile(r"not finite at step (\d+)")
_FORMATS = dict.fromkeys(_METRICS.values(), "{:,.3g}") | dict.fromkeys(("first step", "last step"), "{:,.0f}")


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task of which a seed diverged or ended below its start, or the probe ``stability`` was taken."""
    for task in sweep.tasks:
        frame = stability(sweep, task)
        if frame.empty:
            continue
        ended = sweep.of(task, None)
        gone, measured = int(frame["diverged"].sum()), [one for one in _METRICS.values() if one in frame]
        said = (f"{terms.counted(gone, 'seed')} became not finite, a result of the method at these settings; at the "
                "steps from the first to the last." if gone else "No seed became not finite.")  # fmt: skip
        fallen = int(frame[_FALLEN].sum()) if _FALLEN in frame else 0
        said += (f" {terms.counted(fallen, 'seed')} ended below the start: finite, with a test log-likelihood below "
                 "the untrained model's. Where the curve still falls the energy runs away; where it has settled, that "
                 "is where the objective leads." if fallen else "")  # fmt: skip
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
    """One row per variant of which a seed diverged or ended below its start, or with that probe; none of others."""
    cells, rows, low = sweep.of(task, None), [], below_start(sweep, task)
    for variant in variants(cells):
        of_variant = cells[cells["variant"] == variant]
        gone, done = (of_variant[of_variant["state"] == state] for state in ("diverged", "done"))
        means = {label: done[metric].mean() for metric, label in _METRICS.items() if metric in done}
        fallen = int(done["run"].isin(low).sum())
        if gone.empty and not fallen and not any(pd.notna(value) for value in means.values()):
            continue
        steps = [int(found[1]) for text in gone["error"] if (found := _STEP.search(str(text)))]
        row: dict[str, object] = {"variant": variant, "seeds": len(gone) + len(done), "diverged": len(gone)}
        if low:
            row[_FALLEN] = fallen
        first_and_last = {"first step": min(steps, default=math.nan), "last step": max(steps, default=math.nan)}
        rows.append(row | first_and_last | means)
    frame = pd.DataFrame(rows)
    return frame.dropna(axis="columns", how="all")
