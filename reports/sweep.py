"""A preset of a suite as it stands in the store: its cells, what is missing of it, its learning curves."""

import functools
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.measures import ranking
from benchmark.records.metrics import metric_of, ranked_by
from reports.methods import families, of_variants
from reports.results import Results
from reports.variants import apart

ENDED = ("done", "diverged")  # a divergence is a result; all else is missing
_SELECTED = "selected/"


class Sweep:
    """The cells of one preset. Presets are never mixed.

    Attributes:
        cells: one row per cell that was planned, as ``Store.cells`` has it, and ``source``: "" of who asks.
        steps: the iterations asked for in place of the preset's, or None; such cells are a sweep of their own.
        superseded: how many cells are left out, since a later one of their name and seed stands for them.
        folder: for files that are fetched from the store.
    """

    def __init__(
        self,
        store: Results,
        suite: str,
        preset: str,
        folder: Path,
        tasks: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
        steps: int | None = None,
    ) -> None:
        self.store, self.suite, self.preset, self.folder, self.steps = store, suite, preset, folder, steps
        cells, self.superseded = apart(store.cells(suite, preset))
        cells = cells if "source" in cells else cells.assign(source="")
        for column, chosen in (("task", tasks), ("method", methods)):
            cells = cells if chosen is None else cells[cells[column].isin(chosen)]
        other = other_steps(cells)
        self.others = sorted({int(found) for found in other if found})
        self.cells = cells[other == (steps or 0)].reset_index(drop=True)
        self.curves = functools.lru_cache(maxsize=None)(self._curves)

    @property
    def sources(self) -> list[str]:
        """Whose cells these are, one's own ("") first."""
        return sorted(set(self.cells["source"]))

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the cells: the suite's."""
        return list(dict.fromkeys(self.cells["task"]))

    def of(self, task: str, state: str | None = "done") -> pd.DataFrame:
        """The cells of a task, those that are done unless another state, or None for all, is asked for."""
        chosen = self.cells[self.cells["task"] == task]
        return chosen if state is None else chosen[chosen["state"] == state]

    def missing(self, task: str | None = None) -> pd.DataFrame:
        """The cells that were planned and have no result: not begun, under way, stopped or failed."""
        cells = self.cells if task is None else self.of(task, None)
        return cells[~cells["state"].isin(ENDED)]

    def _curves(self, task: str, metric: str) -> pd.DataFrame:
        """A metric's history: run, method, drawn_as, source, variant, seed, step, value; of the cells that are done.
        NaN for infinities, too: curves have gaps there."""
        done = self.of(task)
        runs = list(done[done[metric].notna()]["run"]) if metric in done else []
        found = self.store.histories(runs, metric)
        rows = done.iloc[pd.Index(done["run"]).get_indexer(found["run"])]
        labels = {name: rows[name].to_numpy() for name in ("run", "method", "drawn_as", "source", "variant", "seed")}
        values = found["value"].to_numpy(float)
        finite = np.where(np.isfinite(values), values, np.nan)
        return pd.DataFrame({**labels, "step": found["step"].to_numpy(int), "value": finite})

    def measures(self, task: str) -> str | None:
        """What a task's models are compared by, as where they were trained."""
        return ranked_by(self.of(task).dropna(axis="columns", how="all"))


def other_steps(cells: pd.DataFrame) -> pd.Series:
    """Of each cell the iterations that ``--steps`` asked for, which its variant's name then ends with; else 0."""
    asked = [
        ranking.asked_steps(str(variant), int(steps))
        for variant, steps in zip(cells["variant"], cells["steps"], strict=True)
    ]
    return pd.Series(asked, cells.index, dtype=int)


def pictures(sweep: Sweep, task: str, kind: str) -> tuple[dict[str, Mapping[str, np.ndarray]], list[str], int]:
    """The last arrays of this kind of each variant's first seed: by variant, their runs, and the seed."""
    from reports import style

    done = sweep.of(task)
    seed = int(done["seed"].min()) if len(done) else 0
    runs = done[done["seed"] == seed].set_index("variant")["run"]
    found, used = dict[str, Mapping[str, np.ndarray]](), list[str]()
    for variant in variants(done)[: style.MANY]:
        run = runs.get(variant)
        file = run and sweep.store.artifact(run, kind, sweep.folder / run)
        content = _arrays(file) if run and file else None
        if run and content:
            found[variant], used = content, [*used, run]
    return found, used, seed


def _arrays(file: Path) -> dict[str, np.ndarray] | None:
    """The arrays in a file that one of our runs wrote; None where it is damaged, or of something else."""
    try:
        with np.load(file) as content:
            found = dict(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return found if "step" in found else None


def at_selected(sweep: Sweep, task: str, metrics: Iterable[str]) -> pd.DataFrame:
    """One row per cell that is done and a column for each metric, where the task's selection rule stopped.

    From the histories: not every metric is repeated under ``selected/``. NaN where a metric was not measured then.
    """
    cells = sweep.of(task)
    found = cells[["run", "variant", "seed"]].assign(step=cells.get(f"{_SELECTED}step", cells["steps"]))
    found["step"] = found["step"].fillna(cells["steps"]).astype(int)
    for metric in metrics:
        values = sweep.curves(task, metric)[["run", "step", "value"]].rename(columns={"value": metric})
        found = found.merge(values, on=["run", "step"], how="left")
    return found.reset_index(drop=True)


def selected(cells: pd.DataFrame, metric: str) -> pd.Series:
    """A metric where the task's selection rule stopped: its last value under the rule "last", which picks no step.

    NaN where the rule picked a step or a mean that has none; the last value of what was measured at the end alone.
    """
    last = cells[metric] if metric in cells else pd.Series(float("nan"), cells.index)
    if _SELECTED + metric not in cells:
        return last
    picked = cells.get(f"{_SELECTED}step")
    return cells[_SELECTED + metric].fillna(last if picked is None else last.where(picked.isna()))


def below_start(sweep: Sweep, task: str) -> set[str]:
    """The runs that are done and better untrained (``ranking.below_start``)."""
    curves = sweep.curves(task, ranking.LIKELIHOOD)
    return {
        str(run)
        for run, curve in curves.groupby("run")
        if ranking.below_start(dict(zip(curve["step"], curve["value"], strict=True)))
    }


def better_is_high(metric: str) -> bool:
    """Whether a model is better the higher this is."""
    return metric_of(metric).higher


def variants(cells: pd.DataFrame) -> list[str]:
    """The variants of these cells, families together."""
    from reports.style import natural

    method = of_variants(cells)
    order = families(method.values())
    return sorted(method, key=lambda name: (order.index(method[name].family), natural(name)))
