"""Log-likelihoods that are estimated, with what bounds them."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from reports import words
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, at_selected, variants

_COLUMNS = {  # metric -> column
    "test/log_likelihood": "AIS",
    "test/log_likelihood_stderr": "± s.e.",
    "test/log_likelihood_lower": "reverse AIS",
    "ais/gap": "gap",
    "test/raise_log_likelihood": "RAISE",
    "ais/temperatures": "temperatures",
    "ais/effective_sample_size": "effective samples",
    "ais/within_tolerance": "within tolerance",
}
_FORMATS = dict.fromkeys(["AIS", "± s.e.", "reverse AIS", "gap", "RAISE"], "{:.2f}") | {
    "iteration": "{:,.0f}",
    "temperatures": "{:,.0f}",
    "effective samples": "{:.1f}",
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task whose likelihoods are estimated by annealing."""
    for task in sweep.tasks:
        done = sweep.of(task)
        if "ais/gap" not in done or not done["ais/gap"].notna().any():
            continue
        frame = likelihoods(sweep, task)
        far, crossed = (frame["within tolerance"] == 0).sum(), (frame["crossed"] == "yes").sum()
        yield Artefact(
            name=f"bounds-{task}",
            title=f"Likelihoods and their bounds ({task})",
            caption="Test log-likelihood (nats) of every seed at its selected checkpoint. AIS finds too small a log Z "
            "on average, so that its log-likelihood is optimistic; s.e. is the standard error of that seed's AIS, not "
            "of a mean over seeds. Reverse AIS is the other side, with the highest log Z of its starts (Gibbs chains "
            "from training data and from the base-rate model), approximately. The gap is the largest absolute distance "
            "of AIS to a start of reverse AIS"
            f"{f'; {far} of them missed the tolerance of the suite' if far else ''}. Crossed "
            f"({words.counted(crossed, 'seed')}): reverse AIS lies above AIS, and the two bracket nothing. "
            "RAISE bounds the likelihood of the annealed model.",
            numbers=frame,
            runs=list(done["run"]),
            missing=len(sweep.missing(task)),
            table=Table(frame.drop(columns="within tolerance"), _FORMATS),
        )


def likelihoods(sweep: Sweep, task: str) -> pd.DataFrame:
    """One row per seed, at its selected checkpoint."""
    found = at_selected(sweep, task, _COLUMNS).rename(columns={**_COLUMNS, "step": "iteration"}).drop(columns="run")
    found = found[found["gap"].notna()]
    order = {variant: place for place, variant in enumerate(variants(sweep.of(task)))}
    found = found.sort_values("variant", key=lambda names: names.map(order), kind="stable")
    crossed = np.where(found["reverse AIS"] > found["AIS"], "yes", "")
    found.insert(list(found).index("gap") + 1, "crossed", crossed)
    return found.reset_index(drop=True)
