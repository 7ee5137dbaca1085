"""How near the couplings of Ising models are to those that made the data."""

from collections.abc import Iterator

import pandas as pd

from reports.artefact import Artefact, Table, fixed
from reports.statistics import of_seeds
from reports.sweep import Sweep, variants

_ERRORS = {
    "couplings/rms_error": "RMS error",
    "couplings/rms_error_neighbours": "between neighbours",
    "couplings/rms_error_others": "between others",
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task where couplings were measured a row per variant, the smallest error first."""
    for task in sweep.tasks:
        done = sweep.of(task).dropna(axis="columns", how="all")
        if not set(_ERRORS) <= set(done):
            continue
        cells = done[done["couplings/rms_error"].notna()]
        frame = pd.DataFrame([of_seeds(cells[cells["variant"] == name], _ERRORS) for name in variants(cells)])
        frame = frame.sort_values("RMS error", kind="stable", ignore_index=True)
        heads = [*_ERRORS.values(), *(f"± {head}" for head in _ERRORS.values())]
        yield Artefact(
            name=f"couplings-{task}",
            title=f"Errors of the couplings ({task})",
            caption="Root mean square error of the couplings J over pairs of units, against those that made the data: "
            "all pairs, neighbours on the lattice, and the others, whose J is 0. Means over seeds, and half-widths of "
            "their 95% intervals (Student's t), of one seed none; the smallest error first.",
            numbers=frame,
            runs=list(cells["run"]),
            missing=len(sweep.missing(task)),
            table=Table(frame.dropna(axis="columns", how="all"), {head: fixed(frame[head], 2) for head in heads}),
        )
