"""Under which conditions the times of cells were taken; what was taken otherwise is not compared."""

import pandas as pd

from benchmark.measures import ranking
from reports import terms

_CLOCKS = {ranking.WALL: "training clock", ranking.PROCESSOR: "processor time"}


def not_compiled(done: pd.DataFrame) -> pd.Series:
    """Of which cells the steps were not compiled; of cells of before that was recorded it is not known, and not so."""
    return done.get("compiled", pd.Series("", index=done.index)) == "false"


def said(done: pd.DataFrame) -> str:
    """By which clock and under which conditions times of an iteration were taken."""
    return f"{_CLOCKS[ranking.clock(done)]}, {conditions(done)}"


def by_clock(done: pd.DataFrame) -> pd.DataFrame:
    """The cells with times of an iteration by the clock that ``said`` names, in the place of the wall's."""
    clock = ranking.clock(done)
    return done.assign(**{ranking.WALL: done[clock]}) if clock in done else done


def machines(done: pd.DataFrame) -> str:
    """Whose times they are where they are of different machines, as a sentence that follows others; else nothing."""
    known = done.reindex(columns=["host", "machine", "source"]).fillna("").drop_duplicates()
    if len(known) < 2:
        return ""
    texts = [
        (", ".join(filter(None, (one["host"], one["machine"]))) or "a machine that is not known")
        + (f" ({one['source']})" if one["source"] else "")
        for one in known.to_dict("records")
    ]
    return f" The times are of different machines, and compare no further than these do: {'; '.join(sorted(texts))}."


def conditions(done: pd.DataFrame) -> str:
    """Under which conditions times were taken: "compiled, on cpu, 1 thread each, beside 1 other job at most"."""
    said = set[str]()
    for cell in done.reindex(columns=["device", "compiled", "threads", "jobs_beside"]).fillna("").to_dict("records"):
        parts = [{"true": "compiled", "false": "not compiled"}.get(cell["compiled"], ""), f"on {cell['device']}"]
        parts += [terms.counted(int(cell["threads"]), "thread")] if cell["threads"].isdecimal() else []
        beside = cell["jobs_beside"]
        parts += [f"beside {terms.counted(int(beside), 'other job')}"] if beside.isdecimal() else []
        said.add(", ".join(part for part in parts if part))
    return "; ".join(sorted(said))
