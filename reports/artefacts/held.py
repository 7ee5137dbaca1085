"""What latent variables hold: features of classes, and whether samples given h keep them."""

from collections.abc import Iterator

import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table
from reports.statistics import of_seeds
from reports.sweep import Sweep, variants

_OF_H = {
    "latent/linear_probe_accuracy": "linear probe",
    "latent/knn_accuracy": "k-NN",
    "class_kept/share": "class kept",
    "class_kept/by_chance": "by chance",
    "class_kept/share_of_h": "share of h",
}
_OF_SAMPLES = {"test/mmd": "MMD²"}
_BY = ("class kept", "share of h", "linear probe", "k-NN", "by chance")  # the first that was measured sorts rows
_OF_IMAGES = {
    "latent/linear_probe_accuracy_pixels": "linear probe",
    "latent/knn_accuracy_pixels": "k-NN",
    "class_kept/of_images": "class kept",
}


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task a row per variant whose h were looked at, and one of the images themselves."""
    for task in sweep.tasks:
        done = sweep.of(task)
        looked_at = [metric for metric in _OF_H if metric in done and done[metric].notna().any()]
        if not looked_at:
            continue
        cells = done[done[looked_at].notna().any(axis="columns")]
        heads = {metric: _OF_H[metric] for metric in looked_at}
        heads |= {metric: head for metric, head in _OF_SAMPLES.items() if metric in cells}
        by = next(head for head in _BY if head in heads.values())
        rows = [of_seeds(cells[cells["variant"] == variant], heads) for variant in variants(cells)]
        frame = pd.DataFrame(rows).drop(columns="± by chance", errors="ignore").dropna(axis="columns", how="all")
        frame = frame.sort_values(by, ascending=False, kind="stable")
        images = {head: cells[metric].mean() for metric, head in _OF_IMAGES.items() if metric in cells}
        frame = pd.concat([frame, pd.DataFrame([{"variant": "images", **images}])], ignore_index=True)
        shown, fine = [name for name in map(str, frame) if name != "variant"], ("of h", "MMD²")
        formats = {name: "{:.4f}" if name.endswith(fine) else "{:.2f}" for name in shown} | {"seeds": "{:.0f}"}
        yield Artefact(
            name=f"held-{task}",
            title=f"What h holds ({task})",
            caption="Accuracy on test data of a logistic regression and of the nearest neighbours on E[h|v]; of "
            "samples v given E[h|v] of a test image the share that the nearest neighbours among training images take "
            "for its class, and what that would be by chance, were each given the h of any image; and the share of the "
            "samples' variance that h makes (0: h does not matter, 1: nothing else does)."
            + (" MMD²: squared maximum mean discrepancy of samples from test images." if "MMD²" in frame else "")
            + " Means over seeds with half-widths of their 95% intervals (Student's t), of one seed none; sorted by "
            f"{by}, the largest first. Below, the same of the images themselves.{_diverged(sweep, task)}",
            numbers=frame,
            runs=list(cells["run"]),
            missing=len(sweep.missing(task)),
            table=Table(frame, formats),
        )


def _diverged(sweep: Sweep, task: str) -> str:
    """Which variants lack seeds that diverged, or are absent for that, as a sentence that follows others."""
    cells, said = sweep.of(task, None), []
    for variant in variants(cells):
        states = cells[cells["variant"] == variant]["state"]
        gone = int((states == "diverged").sum())
        if gone:
            of = "all seeds" if gone == len(states) else f"{gone} of {terms.counted(len(states), 'seed')}"
            said.append(f"{variant} ({of})")
    return f" Diverged, and not in here: {', '.join(said)}." if said else ""
