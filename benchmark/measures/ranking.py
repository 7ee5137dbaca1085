"""The table at the end of a run."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from benchmark.measures.statistics import interval, number, written
from benchmark.records.cells import understood
from benchmark.records.metrics import metric_of
from benchmark.records.rundir import FINISHED, Record, RunDir
from benchmark.records.selection import averaged, said, selected
from benchmark.system.tables import counted

_BESIDE = {
    "test/log_likelihood_lower": "lower bound",
    "test/log_likelihood_bound": "bound or estimate",
    "test/fisher_divergence": "Fisher divergence up to a constant",
}
_CONSTANT = "Fisher divergences are up to a constant of the data, the same for all methods: they may be negative"
_NO_RESULTS = ("time/", "memory/", "train/", "selected/")
_NAMED = 12  # metrics
LIKELIHOOD = "test/log_likelihood"
_UNKNOWN = pd.Series(dtype=float)
WALL, PROCESSOR = "time/ms_per_step", "time/processor_ms_per_step"
_CLOCKS = {WALL: "the wall's clock", PROCESSOR: "the processor's clock, which other work disturbs less"}
STEP = "ms per seed and step"  # a column
_OF_A_SEED = (
    "seed", "pictures", "device", "provenance", "timing", "preset_label", "job", "advice", "took", "symbols",
    "drawn_as", "cost",
)  # fmt: skip


def results(run_dir: RunDir, records: Sequence[Record]) -> pd.DataFrame:
    """One row per finished cell: its labels, and the metrics at the iteration that the task's rule picks.

    Those that are damaged are left out if they are known as such (``integrity.inspect``).
    """
    rows = []
    for record in records:
        folder = run_dir.folder(record.id)
        config = folder.config if record.state in FINISHED else {}
        journal = folder.measurements() if config else []
        with understood(folder.path / "config.json"):
            found = selected(journal, config["rule"], config["select"]) if config else None
        if found:
            curve = {line.step: line.metrics[LIKELIHOOD] for line in journal if LIKELIHOOD in line.metrics}
            rows.append(
                {
                    "task": record.task,
                    "method": record.method,
                    "variant": record.variant,
                    "seed": record.seed,
                    "state": record.state,
                    "configuration": _configuration(config),
                    "rule": (config["rule"], config["select"]),
                    "averaged": averaged(journal, config["rule"], config["select"]),
                    "below_start": below_start(curve),
                    "step": found[0],
                    **found[1],
                }
            )
    return pd.DataFrame(rows)


def _configuration(config: dict[str, Any]) -> str:
    """What seeds that are averaged have in common, as a short hash; a suite file may have changed between two runs."""
    shared = {key: value for key, value in config.items() if key not in _OF_A_SEED}
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def ranking(frame: pd.DataFrame, metric: str, clock: str = WALL) -> pd.DataFrame:
    """Variants of one task by ``metric``, best first; seeds that diverged are counted, never averaged.

    Beside it stand means and half-widths of other metrics that were measured; a step's time is by this ``clock``.
    """
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
                **{name: interval(sound[name]) for name in _BESIDE if name in sound and name != metric},
                "train_seconds": sound.get("time/train_seconds", _UNKNOWN).mean(),
                "ms_per_step": sound.get(clock, _UNKNOWN).mean(),
            }
        )
    ranked = pd.DataFrame(rows).sort_values(
        "mean", ascending=not metric_of(metric).higher, ignore_index=True, na_position="last"
    )
    ranked.attrs["clock"] = clock
    return ranked


def unranked(frame: pd.DataFrame) -> str:
    """Why the cells of a task are in no ranking, and what was measured of them, for people."""
    sound = frame[frame["state"] == "done"].dropna(axis="columns", how="all")
    if sound.empty:
        return f"no ranking: all of {counted(len(frame), 'cell')} diverged"
    names = sorted(name for name in map(str, sound) if "/" in name and not name.startswith(_NO_RESULTS))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"no ranking: of {counted(len(sound), 'cell')} no metric was measured that models are ranked by; what was: "
        f"{', '.join(names[:_NAMED])}{more}; the report has tables of it, MLflow and the cells' journals the values"
    )


def rules(frame: pd.DataFrame, metric: str) -> str:
    """What stands for a seed in these cells, in words; more than one where the suite changed between two runs."""
    return " or ".join(
        sorted(
            {
                said(rule, select, metric not in names)
                for (rule, select), names in zip(frame["rule"], frame["averaged"], strict=True)
            }
        )
    )


def below_start(curve: Mapping[int, float]) -> bool:
    """Whether the last test log-likelihood, of these by iteration, is below that of step 0: better untrained.

    Of some the energy ran away, of others the objective's own optimum is there (pseudo-likelihood that overfits).
    """
    last = max(curve, default=0)
    return last > 0 and 0 in curve and not curve[last] >= curve[0]


def clock(cells: pd.DataFrame) -> str:
    """The metric that times of an iteration are read from: the processor's clock where all of these cells have it,
    which other work disturbs less, else the wall's."""
    return PROCESSOR if PROCESSOR in cells and cells[PROCESSOR].notna().all() else WALL


def conditions(configs: Iterable[Mapping[str, Any]]) -> str:
    """Under which conditions the times of finished cells were taken: "compiled, 1 thread, beside 1 other job"."""
    kinds = Counter(_condition(config) for config in configs if "timing" in config)
    return "; ".join(
        kind if len(kinds) == 1 else f"{kind} ({count} cell{'s' * (count > 1)})" for kind, count in kinds.most_common()
    )


def _condition(config: Mapping[str, Any]) -> str:
    timing = config["timing"]
    threads, beside = timing["threads"], timing["jobs_beside"]
    return (
        f"{'compiled' if timing['compiled'] else 'not compiled'}, on {config['device']}"
        + (f" with {threads} thread{'s' * (threads > 1)}" if config["device"] == "cpu" else "")
        + (f", beside {beside} other job{'s' * (beside > 1)}" if beside else ", alone")
    )


def labels(configs: Iterable[dict[str, Any]], name: str) -> list[str]:
    """What cells carry by this name, each text once: the preset's label, advice about the data."""
    return list(dict.fromkeys(str(config[name]) for config in configs if config.get(name)))


def asked_steps(variant: str, steps: int) -> int:
    """The iterations that ``--steps`` asked for in place of the preset's, with which a variant's name ends; else 0."""
    return steps if re.search(rf"[\[ ]steps={steps}[,\]]", variant) else 0


def apart(records: Sequence[Record]) -> Iterator[tuple[int, list[Record]]]:
    """The cells of a preset, and those of each other number of iterations by themselves: they are not compared."""
    steps = [asked_steps(record.variant, record.steps) for record in records]
    for asked in sorted(set(steps)):
        yield asked, [record for record, own in zip(records, steps, strict=True) if own == asked]


def heading(task: str, asked: int, label: str | None) -> str:
    """What a ranking is of: "digits, 300 iterations: a smoke ranking, not a result"."""
    return f"{task}{f', {asked:,} iterations' if asked else ''}{f': {label}' if label else ''}"


def caption(ranked: pd.DataFrame, metric: str, rule: str) -> str:
    """What must be known of the numbers in a ranking."""
    constant = any(name.endswith("fisher_divergence") and "posterior" not in name for name in (metric, *ranked))
    timed = f" {STEP}: by {_CLOCKS[ranked.attrs['clock']]}." if ranked["ms_per_step"].notna().any() else ""
    return f"A seed's value: {rule}; mean and 95% interval (Student's t) over seeds.{timed}" + (
        f" {_CONSTANT}." if constant else ""
    )


def table(ranked: pd.DataFrame, title: str, metric: str, rule: str) -> Table:
    """A ranking for people, under which stands by which ``rule``."""
    shown = Table(
        title=Text(title, "table.title"),  # its brackets are no markup
        title_justify="left",
        caption=Text(caption(ranked, metric, rule), "table.caption"),
        caption_justify="left",
    )
    shown.add_column("method", no_wrap=True)
    beside = {name: heading for name, heading in _BESIDE.items() if name in ranked}
    for head in (metric, "95% interval", *beside.values(), "seeds", "s per seed", STEP):
        shown.add_column(head, justify="right", min_width=len(head) if head == metric else None)
    for row in ranked.to_dict("records"):
        shown.add_row(
            Text(row["variant"]),
            *measured(row),
            *[written(*row[name]) for name in beside],
            seeds(row),
            _short(row["train_seconds"]),
            _short(row["ms_per_step"]),
        )
    return shown


def measured(row: dict[Any, Any]) -> tuple[str, str]:
    """A ranking's mean and its interval, to the digits that the interval leaves."""
    half_width = "-" if math.isnan(row["half_width"]) else f"± {written(row['half_width'], row['half_width'])}"
    return written(row["mean"], row["half_width"]), half_width


def seeds(row: dict[Any, Any]) -> str:
    """How many stand behind a mean: "2 (+1 diverged)"."""
    return str(row["seeds"]) + (f" (+{row['diverged']} diverged)" if row["diverged"] else "")


def _short(value: float) -> str:
    return "-" if math.isnan(value) else number(value)
