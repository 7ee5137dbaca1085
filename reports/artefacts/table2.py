"""Table 2: FID on CIFAR-10."""

from collections.abc import Iterator

import pandas as pd

from reports import paper, statistics
from reports.artefact import Artefact, Table
from reports.artefacts.table1 import SURE, within
from reports.sweep import Sweep, selected, variants

TASK = "cifar10"
_FORMATS = {
    **{f"{part}{name}": "{:.2f}" for name in ("FID", "early stopping") for part in ("", "paper: ")},
    **dict.fromkeys(("± 95%", "± 95% early"), "{:.2f}"),
    **dict.fromkeys(("difference", "difference: early"), "{:+.2f}"),
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Where FIDs on CIFAR-10 were computed."""
    if TASK not in sweep.tasks or "test/fid" not in sweep.of(TASK):
        return
    done = sweep.of(TASK)
    frame = compare(done)
    yield Artefact(
        name="table2",
        title="Table 2: CIFAR-10 FID",
        caption="FID of 50,000 samples against the training set at the last checkpoint and at the one with the best "
        "FID of 1,000 samples (early stopping), mean over seeds with the half-width of its 95% interval (Student's t), "
        f'beside what the paper prints. "Within" says whether that lies in our interval; * of fewer than {SURE} seeds.',
        numbers=frame,
        runs=list(done["run"]),
        missing=len(sweep.missing(TASK)),
        table=Table(frame, _FORMATS),
    )


def compare(done: pd.DataFrame) -> pd.DataFrame:
    """Ours beside the paper's; what only the paper has stands below."""
    rows, met = [], set()
    for variant in variants(done):
        cells = done[done["variant"] == variant]
        label = str(cells["paper_label"].iloc[0]) or variant
        printed = paper.TABLE2.get(label, (None, None, None))
        met.add(label)
        mean, half_width = statistics.interval(cells["test/fid"].dropna())
        seeds = int(cells["test/fid"].count())
        early, early_width = statistics.interval(selected(cells, "test/fid").dropna())
        rows.append(
            {
                "variant": variant,
                "seeds": len(cells),
                "FID": mean,
                "± 95%": half_width,
                "paper: FID": printed[0],
                "difference": mean - printed[0] if printed[0] else None,
                "within": within(mean, half_width, printed[0], seeds),
                "early stopping": early,
                "± 95% early": early_width,
                "paper: early stopping": printed[1],
                "difference: early": early - printed[1] if printed[1] else None,
                "within: early": within(early, early_width, printed[1], seeds),
            }
        )
    only = [{"variant": f"{label} (paper)", "paper: FID": fid, "paper: early stopping": early}
            for label, (fid, early, _) in paper.TABLE2.items() if label not in met]  # fmt: skip
    return pd.DataFrame([*rows, *only])
