"""Log-likelihoods that are estimated, with what bounds them."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, at_selected, variants

_COLUMNS = {  # metric -> column
    "test/log_likelihood": "AIS",
    "test/log_likelihood_stderr": "± s.e.",
    "test/log_likelihood_lower": "low",
    "test/log_likelihood_upper": "high",
    "ais/gap": "gap",
    "test/raise_log_likelihood": "RAISE",
    "ais/temperatures": "temperatures",
    "ais/effective_sample_size": "effective samples",
    "ais/within_tolerance": "within tolerance",
    "ais/contradictory": "contradictory",
    "ais/level": "level",
}
_FORMATS = dict.fromkeys(["AIS", "± s.e.", "low", "high", "gap", "RAISE"], "{:.2f}") | {
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
        far, wrong = (frame["within tolerance"] == 0).sum(), (frame["contradictory"] == "yes").sum()
        yield Artefact(
            name=f"bounds-{task}",
            title=f"Likelihoods and their bounds ({task})",
            caption="Test log-likelihood (nats) of every seed at its selected checkpoint. AIS finds too small a log Z "
            "on average, so that its log-likelihood is optimistic; s.e. is the standard error of that seed's AIS, not "
            f"of a mean over seeds. {_bounds(frame['level'])} The gap is the largest absolute distance of AIS to a "
            "start of reverse AIS (Gibbs chains from training data and from the base-rate model, where the model "
            "cannot be sampled exactly)"
            f"{f'; {far} of them missed the tolerance of the suite' if far else ''}."
            + (f" Contradictory ({terms.counted(wrong, 'seed')}): a reverse AIS lies on the wrong side of AIS by more "
               "than their errors, so that its chains were no samples of the model, and the bounds may both be wrong."
               if wrong else "")
            + (" RAISE bounds the likelihood of the annealed model." if frame["RAISE"].notna().any() else ""),
            numbers=frame,
            runs=list(done["run"]),
            missing=len(sweep.missing(task)),
            table=Table(frame.drop(columns=["within tolerance", "level", *([] if wrong else ["contradictory"])]),
                        _FORMATS),
        )  # fmt: skip


def _bounds(levels: pd.Series) -> str:
    """What the bounds hold; those of runs that state no level were written without their errors."""
    known = sorted(set(levels.dropna()))
    text = ("Low and high are the ends of the smallest interval that holds AIS and every reverse AIS with their "
            f"margins of error at a level of {' or '.join(f'{level:.0%}' for level in known)}: so often the likelihood "
            "lies between them, if reverse AIS began at samples of the model.") if known else ""  # fmt: skip
    if levels.isna().any():
        text += (" Those of runs without a level are AIS and the furthest reverse AIS as they are, without their "
                 "errors, and no interval.")  # fmt: skip
    return text.strip()


def likelihoods(sweep: Sweep, task: str) -> pd.DataFrame:
    """One row per seed, at its selected checkpoint."""
    found = at_selected(sweep, task, _COLUMNS).rename(columns={**_COLUMNS, "step": "iteration"}).drop(columns="run")
    found = found[found["gap"].notna()]
    order = {variant: place for place, variant in enumerate(variants(sweep.of(task)))}
    found = found.sort_values("variant", key=lambda names: names.map(order), kind="stable")
    found["contradictory"] = np.where(found["contradictory"] == 1, "yes", "")
    return found.reset_index(drop=True)
