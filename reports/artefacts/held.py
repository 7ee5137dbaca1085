"""What latent variables hold: features of classes, and whether samples given h keep them."""

from collections.abc import Iterator

import pandas as pd

from reports.artefact import Artefact, Table
from reports.artefacts.latent import means
from reports.sweep import Sweep

_OF_H = {
    "latent/linear_probe_accuracy": "linear probe",
    "latent/knn_accuracy": "k-NN",
    "class_kept/share": "class kept",
    "class_kept/by_chance": "by chance",
    "class_kept/share_of_h": "share of h",
}
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
        frame = means(cells, {metric: _OF_H[metric] for metric in looked_at})
        images = {head: cells[metric].mean() for metric, head in _OF_IMAGES.items() if metric in cells}
        frame = pd.concat([frame, pd.DataFrame([{"variant": "images", **images}])], ignore_index=True)
        shown = [name for name in map(str, frame) if name != "variant"]
        yield Artefact(
            name=f"held-{task}",
            title=f"What h holds ({task})",
            caption="Accuracy on test data of a logistic regression and of the nearest neighbours on E[h|v]; of "
            "samples v given E[h|v] of a test image the share that the nearest neighbours among training images take "
            "for its class, and what that would be by chance, were each given the h of any image; and the share of the "
            "samples' variance that h makes (0: h does not matter, 1: nothing else does). Means over seeds; below, the "
            "same of the images themselves.",
            numbers=frame,
            runs=list(cells["run"]),
            missing=len(sweep.missing(task)),
            table=Table(frame, dict.fromkeys(shown, "{:.2f}") | {name: "{:.4f}" for name in shown if "of h" in name}),
        )
