"""Table 1: the Frey faces."""

import math
from collections.abc import Iterator

import pandas as pd

from reports import paper, statistics
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, selected, variants

TASK = "freyface"
_METRICS = {"test/log_likelihood": "log-likelihood", "test/fisher_divergence": "Fisher divergence"}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Where the suite has the Frey faces and variants that the paper's table has."""
    if sweep.suite != TASK or TASK not in sweep.tasks:
        return
    done = sweep.of(TASK)
    frame = compare(done)
    if not frame["paper: log-likelihood"].notna().any():
        return
    missing = sweep.missing(TASK)
    formats = {
        name: "{:.2f}" for name in map(str, frame) if name not in ("variant", "seeds") and not name.startswith("within")
    }
    formats |= {name: "{:+.2f}" for name in map(str, frame) if name.startswith("difference")}
    yield Artefact(
        name="table1",
        title="Table 1: Frey face",
        caption=f"Test log-likelihood and Fisher divergence of the model with the best validation Fisher divergence, "
        f"mean over seeds with the half-width of its 95% interval (Student's t), beside what the paper prints and the "
        f'difference. "Within" says whether the paper\'s value lies in our interval. Preset {sweep.preset}.',
        numbers=frame,
        runs=list(done["run"]),
        missing=len(missing),
        table=Table(frame, formats),
    )


def compare(done: pd.DataFrame) -> pd.DataFrame:
    """Ours beside the paper's."""
    rows = []
    for variant in variants(done):
        cells, printed = done[done["variant"] == variant], paper.TABLE1.get(variant, (math.nan, math.nan))
        row: dict[str, object] = {"variant": variant, "seeds": len(cells)}
        for (metric, name), value in zip(_METRICS.items(), printed, strict=True):
            mean, half_width = statistics.interval(selected(cells, metric).dropna())
            row |= {
                name: mean,
                f"± 95% {name}": half_width,
                f"paper: {name}": value,
                f"difference: {name}": mean - value,
                f"within: {name}": within(mean, half_width, value),
            }
        rows.append(row)
    order = {variant: place for place, variant in enumerate(paper.TABLE1)}
    rows.sort(key=lambda row: order.get(str(row["variant"]), len(order)))
    return pd.DataFrame(rows)


def within(mean: float, half_width: float, printed: float | None) -> str:
    """Whether a printed value lies in our interval; nothing where there is no interval or no value."""
    if printed is None or math.isnan(printed) or math.isnan(half_width) or math.isnan(mean):
        return ""
    return "yes" if abs(mean - printed) <= half_width else "no"
