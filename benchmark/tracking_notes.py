"""What stands in the description of a plan's run: its ranking so far. Part of ``tracking``."""

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from benchmark import ranking, timing
from benchmark.integrity import inspect
from benchmark.rundir import FINISHED, Record, RunDir


def plan_note(run_dir: RunDir, records: Sequence[Record]) -> str:
    """Markdown: a ranking for each task, how many cells have which state, and how times were taken."""
    records = inspect(run_dir, records).records
    finished = [run_dir.folder(record.id).config for record in records if record.state in FINISHED]
    states = ", ".join(f"{count} {state}" for state, count in Counter(record.state for record in records).items())
    parts = [f"{len(records)} cells: {states}."]
    parts += [
        f"**{label}**"
        for label in sorted({config["preset_label"] for config in finished if config.get("preset_label")})
    ]
    frame = ranking.results(run_dir, records)
    for task in [] if frame.empty else frame["task"].unique():
        cells = frame[frame["task"] == task].dropna(axis="columns", how="all")
        metric = next((name for name in ranking.BY if name in cells), None)
        if metric is not None:
            parts += [f"### {task}", _table(ranking.ranking(cells, metric), metric)]
            parts += [f"A seed's value: {' or '.join(sorted(set(cells['rule'])))}."] if "rule" in cells else []
    parts += [f"Times: {timed}." for timed in [timing.conditions(finished)] if timed]
    return "\n\n".join(parts)


def _table(ranked: pd.DataFrame, metric: str) -> str:
    rows = [
        {
            "": place,
            "method": row["variant"],
            metric: _number(row["mean"]),
            "95% interval": f"± {_number(row['half_width'])}",
            "seeds": f"{row['seeds']}" + (f" (+{row['diverged']} diverged)" if row["diverged"] else ""),
            "ms per seed and step": _number(row["ms_per_step"]),
        }
        for place, row in enumerate(ranked.to_dict("records"), start=1)
    ]
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True, colalign=_ALIGNED))


_ALIGNED = ("right", "left", "right", "right", "right", "right")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
