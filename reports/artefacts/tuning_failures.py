"""Trials that failed, by their reasons."""

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table
from reports.studies import Studies, Study

_NUMBER = re.compile(r"(?<![\w.])[-−+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?(?![\w])", re.IGNORECASE)
_LETTERS = 100
_UNKNOWN = "not said"


def build(studies: Studies) -> Iterator[Artefact]:
    """A table for each task of which a trial failed."""
    for task in studies.tasks:
        frame = reasons(studies.of(task))
        if frame.empty:
            continue
        failed = [run for study in studies.of(task) for run in study.trials[study.trials["state"] == "failed"]["run"]]
        yield Artefact(
            name=f"failed-{task}",
            title=f"Trials that failed ({task})",
            caption=f"{terms.capital(terms.counted(int(frame['count'].sum()), 'trial'))} failed and "
            f"{'has' if len(failed) == 1 else 'have'} no value. Reasons that differ in their numbers alone are counted "
            "together, with … for what differs.",
            numbers=frame,
            runs=failed,
            table=Table(frame.assign(reason=frame["reason"].map(_cut))),
        )


def reasons(studies: Sequence[Study]) -> pd.DataFrame:
    """One row per method and reason, the most frequent first: method, reason, count, trials."""
    rows = []
    for study in studies:
        failed = study.trials[study.trials["state"] == "failed"]
        said = failed["reason"].map(_first_line)
        for _, group in failed.assign(said=said).groupby(said.map(lambda text: _NUMBER.sub("…", text)), sort=False):
            rows.append({"method": study.label, "reason": _common(list(group["said"])), "count": len(group),
                         "trials": ", ".join(map(str, group["trial"]))})  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "reason", "count", "trials"])
    return frame.sort_values("count", ascending=False, kind="stable", ignore_index=True)


def _cut(text: str) -> str:
    """A long reason makes a page's table small: the CSV file has all of it."""
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1].rstrip() + "…"


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [_UNKNOWN])[0]


def _common(texts: Sequence[str]) -> str:
    """Texts that differ in numbers alone as one, with the numbers that all have."""
    numbers = [_NUMBER.findall(text) for text in texts]
    same = iter([found[0] if len(set(found)) == 1 else "…" for found in zip(*numbers, strict=True)])
    return _NUMBER.sub(lambda _: next(same), texts[0])
