"""Under which conditions the times of cells were taken; what was taken otherwise is not compared."""

import pandas as pd

from reports import terms


def not_compiled(done: pd.DataFrame) -> pd.Series:
    """Of which cells the steps were not compiled; of cells of before that was recorded it is not known, and not so."""
    return done.get("compiled", pd.Series("", index=done.index)) == "false"


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
