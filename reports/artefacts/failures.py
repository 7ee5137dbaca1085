"""What did not end well: divergences, failures, and cells that are missing."""

from collections.abc import Iterator

import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, variants

_STATES = ("done", "diverged", "failed", "stopped", "running", "planned")


def build(sweep: Sweep) -> Iterator[Artefact]:
    """How many seeds of each variant ended in which state, and a list of those that are not done."""
    cells = sweep.cells
    frame = counts(cells)
    bad = cells[cells["state"] != "done"]
    yield Artefact(
        name="states",
        title="How the cells ended",
        caption=f"Planned: {terms.counted(len(cells), 'cell')}, " + (
            "all done." if bad.empty else f"{len(bad)} not done. A seed that diverged is a result of its "
            "method; all others that are not done are missing from the figures."),
        numbers=frame,
        runs=_begun(cells),
        missing=len(sweep.missing()),
        table=Table(frame),
    )  # fmt: skip
    if len(bad):
        listed = bad[["task", "variant", "seed", "state", "error", "run"]].reset_index(drop=True)
        yield Artefact(
            name="not-done",
            title="Cells that are not done",
            caption="The same command goes on with what was stopped or not begun; a failed cell is tried again by it.",
            numbers=listed,
            runs=_begun(bad),
            missing=len(sweep.missing()),
            table=Table(listed),
        )


def _begun(cells: pd.DataFrame) -> list[str]:
    return [run for run in cells["run"] if run]  # a cell that was only planned has none


def counts(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task and variant, a column for each state that occurs."""
    rows = []
    for task, of_task in cells.groupby("task", sort=False):
        for variant in variants(of_task):
            states = of_task[of_task["variant"] == variant]["state"]
            rows.append({"task": task, "variant": variant, "cells": len(states),
                         **{state: int((states == state).sum()) for state in _STATES}})  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.drop(columns=[state for state in _STATES if state != "done" and not frame[state].any()])
