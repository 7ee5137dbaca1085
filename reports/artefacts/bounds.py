"""Log-likelihoods that are estimated, with what bounds them."""

from collections.abc import Iterator

import pandas as pd

from reports.artefact import Artefact, Table
from reports.sweep import Sweep, selected, variants

_COLUMNS = {  # metric -> column
    "test/log_likelihood": "AIS (optimistic)",
    "test/log_likelihood_stderr": "standard error",
    "test/log_likelihood_lower": "reverse AIS",
    "test/raise_log_likelihood": "RAISE (annealed model)",
    "ais/gap": "gap",
    "ais/temperatures": "temperatures",
    "ais/effective_sample_size": "effective samples",
}
_FORMATS = dict.fromkeys(list(_COLUMNS.values())[:5], "{:.2f}") | {
    "temperatures": "{:,.0f}",
    "effective samples": "{:.1f}",
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task whose likelihoods are estimated by annealing."""
    for task in sweep.tasks:
        done = sweep.of(task)
        if "ais/gap" not in done or not done["ais/gap"].notna().any():
            continue
        frame = likelihoods(done)
        yield Artefact(
            name=f"bounds-{task}",
            title=f"Likelihoods and their bounds ({task})",
            caption="Mean over seeds of the test log-likelihood at the selected checkpoint. AIS bounds log Z from "
            "below on average, so that its log-likelihood is optimistic; reverse AIS from Gibbs chains is the other "
            "side, approximately; RAISE bounds the likelihood of the annealed model. The gap is between the first two.",
            numbers=frame,
            runs=list(done["run"]),
            missing=len(sweep.missing(task)),
            table=Table(frame, _FORMATS),
        )


def likelihoods(done: pd.DataFrame) -> pd.DataFrame:
    """One row per variant, means over seeds."""
    rows = []
    for variant in variants(done):
        cells = done[done["variant"] == variant]
        means = {column: selected(cells, metric).mean() for metric, column in _COLUMNS.items()}
        rows.append({"variant": variant, "seeds": len(cells), **means})
    return pd.DataFrame(rows)
