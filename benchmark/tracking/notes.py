"""What stands in the description of a plan's run: its ranking so far. Part of ``tracking``."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmark.measures import ranking
from benchmark.measures.statistics import number
from benchmark.records.integrity import inspect
from benchmark.records.metrics import ranked_by
from benchmark.records.rundir import FINISHED, Record, RunDir
from benchmark.system import tables


def plan_note(run_dir: RunDir, records: Sequence[Record]) -> str:
    """Markdown: a ranking for each task and number of iterations, how many cells have which state, how times were
    taken."""
    records = inspect(run_dir, records).records
    finished = [run_dir.folder(record.id).config for record in records if record.state in FINISHED]
    states = ", ".join(f"{count} {state}" for state, count in Counter(record.state for record in records).items())
    parts = [f"{tables.counted(len(records), 'cell')}: {states}."]
    parts += [f"**{label}**" for label in ranking.labels(finished, "preset_label")]
    for asked, group in ranking.apart(records):
        frame = ranking.results(run_dir, group)
        for task in [] if frame.empty else frame["task"].unique():
            cells = frame[frame["task"] == task].dropna(axis="columns", how="all")
            metric = ranked_by(cells)
            if metric is not None:
                ranked = ranking.ranking(cells, metric)
                parts += [f"### {ranking.heading(task, asked, None)}", _table(ranked, metric)]
                parts += [ranking.caption(ranked, metric, ranking.rules(cells, metric))]
    parts += [f"Times: {timed}." for timed in [ranking.conditions(finished)] if timed]
    parts += [f"Note: {text}." for text in ranking.labels(finished, "advice")]
    return "\n\n".join(parts)


def _table(ranked: pd.DataFrame, metric: str) -> str:
    rows = [_row(place, row, metric) for place, row in enumerate(ranked.to_dict("records"), start=1)]
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True, colalign=_ALIGNED))


def _row(place: int, row: dict[Any, Any], metric: str) -> dict[str, Any]:
    mean, interval = ranking.measured(row)
    return {
        "": place,
        "method": row["variant"],
        metric: mean,
        "95% interval": interval,
        "seeds": ranking.seeds(row),
        ranking.STEP: "-" if pd.isna(row["ms_per_step"]) else number(row["ms_per_step"]),
    }


_ALIGNED = ("right", "left", "right", "right", "right", "right")
