"""Table 2: FID on CIFAR-10."""

from collections.abc import Iterator

import pandas as pd

from reports import paper, statistics
from reports.artefact import Artefact, Table
from reports.artefacts.table1 import SURE, within
from reports.sweep import Sweep, selected, variants

SUITE, _FID, _OTHER, _OTHER_NAME = "cifar10", "test/fid", "test/frechet_resnet56", "ResNet-56 distance"
_FORMATS = {
    **{f"{part}{name}": "{:.2f}" for name in ("FID", "early stopping") for part in ("", "paper: ")},
    **dict.fromkeys(("± 95%", "± 95% early", _OTHER_NAME), "{:.2f}"),
    **dict.fromkeys(("difference", "difference: early"), "{:+.2f}"),
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """Where samples of CIFAR-10 were judged: by FID, or by other features where Inception's weights were not given."""
    for task in sweep.tasks if sweep.suite == SUITE else []:
        done = sweep.of(task)
        judged = any(name in done and done[name].notna().any() for name in (_FID, _OTHER))
        if judged and (done["paper_label"] != "").any():
            yield _table(sweep, task, done)


def _table(sweep: Sweep, task: str, done: pd.DataFrame) -> Artefact:
    frame = compare(done)
    unjudged = _FID not in done or not done[_FID].notna().any()
    return Artefact(
        name="table2" if task == SUITE else f"table2-{task}",
        title="Table 2: CIFAR-10 FID" if task == SUITE else f"Table 2: CIFAR-10 FID ({task})",
        caption="FID of 50,000 samples against the training set at the last checkpoint and at the one with the best "
        "FID of 1,000 samples (early stopping), mean over seeds with the half-width of its 95% interval (Student's t), "
        f'beside what the paper prints. "Within" says whether that lies in our interval; * of fewer than {SURE} seeds.'
        + (" Fréchet distances of ResNet-56 features are no FID and stand beside no printed value." if _OTHER in done
           else "")
        + (" No FID was computed, since Inception's weights were not given." if unjudged else ""),
        numbers=frame,
        runs=list(done["run"]),
        missing=len(sweep.missing(task)),
        table=Table(frame.dropna(axis="columns", how="all"), _FORMATS),
    )  # fmt: skip


def compare(done: pd.DataFrame) -> pd.DataFrame:
    """Ours beside the paper's; what has not been run here stands below and says so."""
    rows, met = [], set()
    for variant in variants(done):
        cells = done[done["variant"] == variant]
        label = str(cells["paper_label"].iloc[0]) or variant
        printed = paper.TABLE2.get(label, (None, None, None))
        met.add(label)
        fid = _values(cells, _FID)
        mean, half_width = statistics.interval(fid)
        seeds = len(fid)
        early, early_width = statistics.interval(selected(cells, _FID).dropna())
        rows.append(
            {
                "variant": variant,
                "seeds": str(len(cells)),
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
                _OTHER_NAME: statistics.interval(_values(cells, _OTHER))[0],
            }
        )
    only = [{"variant": label, "seeds": "not run", "paper: FID": fid, "paper: early stopping": early}
            for label, (fid, early, _) in paper.TABLE2.items() if label not in met]  # fmt: skip
    return pd.DataFrame([*rows, *only])


def _values(cells: pd.DataFrame, metric: str) -> pd.Series:
    return cells[metric].dropna() if metric in cells else pd.Series(dtype=float)
