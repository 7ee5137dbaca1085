"""The table at the end of a run."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text
from scipy import stats

from benchmark.cells import understood
from benchmark.rundir import FINISHED, Record, RunDir
from benchmark.selection import said, selected

# What a task's models are ranked by: the first of these that was measured, as in the report.
BY = (
    "test/fid",
    "test/frechet_resnet56",
    "test/log_likelihood",
    "test/fisher_divergence",
    "test/posterior_fisher_divergence",
)
_BESIDE = {"test/log_likelihood_lower": "lower bound", "test/fisher_divergence": "Fisher divergence"}
_UNKNOWN = pd.Series(dtype=float)
_OF_A_SEED = ("seed", "pictures", "device", "provenance", "timing", "preset_label", "job")


def results(run_dir: RunDir, records: Sequence[Record]) -> pd.DataFrame:
    """One row per finished cell: its labels, and the metrics at the iteration that the task's rule picks.

    Those that are damaged are left out if they are known as such (``integrity.inspect``).
    """
    rows = []
    for record in records:
        folder = run_dir.folder(record.id)
        config = folder.config if record.state in FINISHED else {}
        with understood(folder.path / "config.json"):
            found = selected(folder.measurements(), config["rule"], config["select"]) if config else None
        if found:
            rows.append(
                {
                    "task": record.task,
                    "method": record.method,
                    "variant": record.variant,
                    "seed": record.seed,
                    "state": record.state,
                    "configuration": _configuration(config),
                    "rule": said(config["rule"], config["select"]),
                    "step": found[0],
                    **found[1],
                }
            )
    return pd.DataFrame(rows)


def _configuration(config: dict[str, Any]) -> str:
    """What seeds that are averaged have in common, as a short hash; a suite file may have changed between two runs."""
    shared = {key: value for key, value in config.items() if key not in _OF_A_SEED}
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean and half-width of its 95% confidence interval (Student's t); the half-width of one value is not known."""
    sample = np.asarray(list(values), dtype=float)
    if len(sample) < 2:
        return float(sample.mean()), math.nan
    quantile = float(stats.t.ppf(0.975, len(sample) - 1))
    return float(sample.mean()), quantile * float(sample.std(ddof=1)) / math.sqrt(len(sample))


def ranking(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Variants of one task by ``metric``, best first; seeds that diverged are counted, never averaged.

    Beside it stand the means of other metrics that were measured.
    """
    better_high = metric.endswith("log_likelihood")
    rows = []
    for (variant, _), cells in frame.groupby(["variant", "configuration"], sort=False):
        sound = cells[cells["state"] == "done"]
        mean, half_width = interval(sound[metric]) if len(sound) else (math.nan, math.nan)
        rows.append(
            {
                "variant": variant,
                "mean": mean,
                "half_width": half_width,
                "seeds": len(sound),
                "diverged": len(cells) - len(sound),
                **{name: sound[name].mean() for name in _BESIDE if name in sound and name != metric},
                "train_seconds": sound.get("time/train_seconds", _UNKNOWN).mean(),
                "ms_per_step": sound.get("time/ms_per_step", _UNKNOWN).mean(),
            }
        )
    return pd.DataFrame(rows).sort_values("mean", ascending=not better_high, ignore_index=True, na_position="last")


def rules(frame: pd.DataFrame) -> str:
    """What stands for a seed in these cells, in words; more than one where the suite changed between two runs."""
    return " or ".join(sorted(set(frame["rule"])))


def table(ranked: pd.DataFrame, title: str, metric: str, rule: str) -> Table:
    """A ranking for people, under which stands by which ``rule``."""
    caption = f"A seed's value: {rule}; mean and interval (Student's t) over seeds"
    shown = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    shown.add_column("method", no_wrap=True)
    beside = {name: heading for name, heading in _BESIDE.items() if name in ranked}
    for heading in (metric, "95% interval", *beside.values(), "seeds", "s per seed", "ms per seed and step"):
        shown.add_column(heading, justify="right", min_width=len(heading) if heading == metric else None)
    for row in ranked.to_dict("records"):
        seeds = str(row["seeds"]) + (f" (+{row['diverged']} diverged)" if row["diverged"] else "")
        shown.add_row(
            Text(row["variant"]),  # its brackets are no markup
            _number(row["mean"]),
            f"± {_number(row['half_width'])}",
            *[_number(row[name], 2) for name in beside],
            seeds,
            _number(row["train_seconds"], 1),
            _number(row["ms_per_step"]),
        )
    return shown


def _number(value: Any, digits: int = 3) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
