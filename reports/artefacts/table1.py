"""Table 1: the Frey faces."""

import math
from collections.abc import Iterator

import pandas as pd

from reports import paper, statistics, terms
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, selected, variants
from reports.variants import own_name

TASK = "freyface"
SURE = 3  # seeds, from which an interval says something
_METRICS = ("test/log_likelihood", "test/fisher_divergence")


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Where the suite has the Frey faces and variants that the paper's table has."""
    if sweep.suite != TASK or TASK not in sweep.tasks:
        return
    done = sweep.of(TASK)
    frame = compare(done)
    if not frame["paper"].notna().any():
        return
    missing = sweep.missing(TASK)
    formats = dict.fromkeys(("ours", "± 95%", "paper"), "{:.2f}") | {"difference": "{:+.2f}"}
    yield Artefact(
        name="table1",
        title="Table 1: Frey face",
        caption=f"Test log-likelihood (nats) and Fisher divergence (up to a constant) of the model with "
        f"the best validation Fisher divergence, mean over seeds with the half-width of its 95% interval (Student's "
        f't), beside what the paper prints and the difference. "Within" says whether the paper\'s value lies in our '
        f"interval; * of fewer than {SURE} seeds, whose interval is so wide that a yes says little. Preset "
        f"{sweep.preset}.",
        numbers=frame,
        runs=list(done["run"]),
        missing=len(missing),
        table=Table(frame, formats),
    )


def compare(done: pd.DataFrame) -> pd.DataFrame:
    """One row per measure and variant: ours beside the paper's, in the paper's order."""
    order = {variant: place for place, variant in enumerate(paper.TABLE1)}
    whose = dict(zip(done["variant"], done["source"], strict=True)) if "source" in done else {}
    names = {variant: own_name(variant, whose.get(variant, "")) for variant in variants(done)}
    rows = []
    for place, metric in enumerate(_METRICS):
        for variant in sorted(names, key=lambda one: order.get(names[one], len(order))):
            values = selected(done[done["variant"] == variant], metric).dropna()
            printed = paper.TABLE1[names[variant]][place] if names[variant] in order else math.nan
            mean, half_width = statistics.interval(values)
            rows.append(
                {
                    "measure": terms.short(metric),
                    "variant": variant,
                    "seeds": len(values),
                    "ours": mean,
                    "± 95%": half_width,
                    "paper": printed,
                    "difference": mean - printed,
                    "within": within(mean, half_width, printed, len(values)),
                }
            )
    return pd.DataFrame(rows)


def within(mean: float, half_width: float, printed: float | None, seeds: int) -> str:
    """Whether a printed value lies in our interval, marked for few seeds; nothing without an interval or a value."""
    if printed is None or math.isnan(printed) or math.isnan(half_width) or math.isnan(mean):
        return ""
    return ("yes" if abs(mean - printed) <= half_width else "no") + ("*" if seeds < SURE else "")
