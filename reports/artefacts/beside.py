"""What differs between one's own cells and those of others that bear the same name, and whether their numbers do."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table, fixed
from reports.methods import agreed, symbols
from reports.sweep import Sweep, selected, variants
from reports.variants import called

_LABELS = {
    "steps": "iterations", "select": "rule", "data_hash": "data", "git_commit": "commit", "torch_version": "torch",
    "python_version": "Python", "machine": "machine", "device": "device", "compiled": "compiled",
}  # fmt: skip
_SHORT = {"git_commit": 12, "data_hash": 12}  # characters
_DIFFERS, _LARGEST = "what differs", "largest difference of a seed"
_NOT = ("param.seed", "param.steps")


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One table where there are cells of one's own and of others."""
    frame, common = compare(sweep)
    if frame.empty:
        return
    alone = len(variants(sweep.cells[sweep.cells["source"] == ""])) - frame["variant"].nunique()
    same = frame[_LARGEST].eq(0).sum()
    yield Artefact(
        name="beside",
        title="Your own and the results of others",
        caption="Variants that both have, and in what their configurations differ (yours, then theirs)."
        + (f" All differ in this: {'; '.join(common)}." if common else "")
        + f" The largest difference of a seed is in what the task's variants are ranked by; {same:,} of "
        f"{terms.counted(len(frame), 'variant')} have the same numbers to the last digit."
        + (f" {terms.counted(alone, 'variant')} of your own {'is' if alone == 1 else 'are'} in none of theirs."
           if alone > 0 else ""),
        numbers=frame,
        runs=list(sweep.cells[sweep.cells["run"] != ""]["run"]),
        table=Table(frame, {_LARGEST: fixed(frame[_LARGEST])}, long=_DIFFERS),
    )  # fmt: skip


def compare(sweep: Sweep) -> tuple[pd.DataFrame, list[str]]:
    """A row for each variant that both have, and what all of these differ in."""
    rows, found = [], list[list[str]]()
    for task in sweep.tasks:
        cells = sweep.of(task, None)
        own = cells[cells["source"] == ""]
        for source in filter(None, sweep.sources):
            for name in variants(own):
                ours, theirs = own[own["variant"] == name], cells[cells["variant"] == called(name, source)]
                if theirs.empty:
                    continue
                found.append(differences(ours, theirs))
                rows.append({"task": task, "variant": name, "whose": source, "seeds": len(ours), "theirs": len(theirs),
                             _LARGEST: _largest(sweep, task, ours, theirs)})  # fmt: skip
    counts = Counter(text for texts in found for text in texts)
    common = [text for text, count in counts.items() if count == len(found) > 1]
    said = ["; ".join(text for text in texts if text not in common) or "-" for texts in found]
    return pd.DataFrame(rows).assign(**{_DIFFERS: said}) if rows else pd.DataFrame(), common


def differences(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
    """What two groups of cells of one name differ in, as far as both say it: "iterations 500, 1,250"."""
    names = agreed(map(symbols, {*ours["symbols"], *theirs["symbols"]}))
    params = [str(name) for name in ours if str(name).startswith("param.") and name not in _NOT]
    found = []
    for column in [*(name for name in _LABELS if name in ours), *params]:
        here, there = (_values(of[column], _SHORT.get(column)) for of in (ours, theirs))
        if here and there and here != there:
            name = _LABELS.get(column) or terms.hyperparameter(column.removeprefix("param."), names)
            found.append(f"{name} {here}, {there}")
    return found


def _values(column: pd.Series, length: int | None) -> str:
    values = {
        f"{value:,}" if isinstance(value, int) else str(value)[:length] for value in column.dropna() if value != ""
    }
    return " and ".join(sorted(values))


def _largest(sweep: Sweep, task: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> float:
    """By how much the values of a seed that both have differ at most; NaN where they have none in common."""
    metric = sweep.measures(task)
    if metric is None:
        return float("nan")
    values = [selected(of[of["state"] == "done"].set_index("seed"), metric) for of in (ours, theirs)]
    both = pd.concat(values, axis=1).dropna()
    return float(np.abs(both.iloc[:, 0] - both.iloc[:, 1]).max()) if len(both) else float("nan")
