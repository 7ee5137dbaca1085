"""Log-likelihoods that are estimated or bounded, with what is known of their errors."""

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


_BOUNDED = {  # metric -> column, of the probe ``bound``
    "test/log_likelihood_bound": "bound",
    "test/log_likelihood_bound_lower": "low",
    "test/log_likelihood_bound_upper": "high",
    "bound/log_z": "log Z",
    "bound/standard_error": "± s.e.",
    "bound/gap": "gap",
    "bound/temperatures": "temperatures",
    "bound/contradictory": "contradictory",
}
_BOUNDED_FORMATS = dict.fromkeys(["bound", "low", "high", "log Z", "± s.e.", "gap"], "{:.2f}") | {
    "iteration": "{:,.0f}",
    "temperatures": "{:,.0f}",
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """One for each task whose likelihoods are estimated by annealing, and one where log p~(v) itself is bounded."""
    yield from _annealed(sweep)
    for task in sweep.tasks:
        done = sweep.of(task)
        if "bound/gap" not in done or not done["bound/gap"].notna().any():
            continue
        frame = likelihood_bounds(sweep, task)
        exact = frame["gap"] == 0
        wrong = int((frame["contradictory"] == "yes").sum())
        yield Artefact(
            name=f"likelihood-bounds-{task}",
            title=f"Bounds of the log-likelihood ({task})",
            caption="Mean test log-likelihood (nats) of every seed at its selected checkpoint, or a lower bound of it: "
            "log p̃(v) is exact for models with a free energy, bounded by mean field for deep Boltzmann machines and by "
            "importance sampling from the trained posterior for deep belief networks."
            + _log_z(bool(exact.all()), bool(exact.any()))
            + (f" Contradictory ({terms.counted(wrong, 'seed')}): a reverse AIS lies on the wrong side of AIS by more "
               "than their errors." if wrong else ""),
            numbers=frame,
            runs=list(done["run"]),
            missing=len(sweep.missing(task)),
            table=Table(frame.drop(columns=_idle(frame, bool(exact.all()), wrong)), _BOUNDED_FORMATS),
        )  # fmt: skip


def _log_z(all_exact: bool, some_exact: bool) -> str:
    """How log Z was had."""
    if all_exact:
        return " log Z is exact, by enumeration."
    where = "exact where the gap is 0 and else " if some_exact else ""
    return (
        f" log Z is {where}AIS's, too small on average, so that the bound is optimistic; low and high have the ends of "
        "the interval that AIS and reverse AIS bracket in its place, s.e. is the standard error of AIS, and the gap "
        "how far the two ended from each other."
    )


def _idle(frame: pd.DataFrame, exact: bool, wrong: int) -> list[str]:
    """Columns that say nothing here."""
    idle = ["low", "high", "± s.e.", "gap", "temperatures"] if exact else []
    idle += [] if wrong else ["contradictory"]
    return [name for name in idle if name in frame]


def likelihood_bounds(sweep: Sweep, task: str) -> pd.DataFrame:
    """One row per seed, at its selected checkpoint."""
    found = at_selected(sweep, task, _BOUNDED).rename(columns={**_BOUNDED, "step": "iteration"}).drop(columns="run")
    return _in_order(sweep, task, found[found["bound"].notna()])


def _in_order(sweep: Sweep, task: str, found: pd.DataFrame) -> pd.DataFrame:
    order = {variant: place for place, variant in enumerate(variants(sweep.of(task)))}
    found = found.sort_values("variant", key=lambda names: names.map(order), kind="stable")
    found["contradictory"] = np.where(found["contradictory"] == 1, "yes", "")
    return found.reset_index(drop=True)


def _annealed(sweep: Sweep) -> Iterator[Artefact]:
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
    return _in_order(sweep, task, found[found["gap"].notna()])
