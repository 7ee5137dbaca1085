"""How good samples of images are, and what other images the energies tell from test images."""

import re
from collections.abc import Iterable, Iterator

import pandas as pd

from reports.artefact import Artefact, Table
from reports.statistics import of_seeds
from reports.sweep import Sweep, variants

_OF_SAMPLES = {
    "test/fid": ("FID", "{:.2f}"),
    "test/frechet_resnet56": ("ResNet-56 distance", "{:.2f}"),
    "test/kid": ("KID", "{:.4f}"),
    "test/inception_score": ("Inception Score", "{:.2f}"),
    "test/mmd": ("MMD²", "{:.4f}"),
}  # metric: head of its column, and the numbers' format
_MEANING = {  # of the columns that are there
    "Fréchet and kernel distances of their features from the training set's": ("fid", "frechet_resnet56", "kid"),
    "Inception Score (high is good)": ("inception_score",),
    "squared maximum mean discrepancy of pixels from test images": ("mmd",),
}
_ENERGIES = re.compile(r"ood/auroc_(.+)")
_OF_POINTS = "test/c2st"  # points in the plane have tables of their own


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task of images a row per variant of which samples were judged or energies looked at."""
    for task in sweep.tasks:
        done = sweep.of(task).dropna(axis="columns", how="all")
        samples = {metric: of for metric, of in _OF_SAMPLES.items() if metric in done and _OF_POINTS not in done}
        energies = {
            metric: f"AUROC, {match[1].replace('_', ' ')}"
            for metric in map(str, done)
            if (match := _ENERGIES.fullmatch(metric))
        }
        if not samples and not energies:
            continue
        cells = done[done[[*samples, *energies]].notna().any(axis="columns")]
        frame = pd.DataFrame([_row(cells[cells["variant"] == name], samples, energies) for name in variants(cells)])
        said = [
            f"Samples: {_meaning(samples)}; means over seeds, and half-widths of their 95% intervals (Student's t), of "
            "one seed none." if samples else "",
            "AUROC: of pairs of a test image and another one, in which share the other has the higher energy (0.5 is "
            "chance); noise is uniform, shuffled and inverted images are test images; means over seeds."
            if energies else "",
        ]  # fmt: skip
        formats = {name: text for head, text in samples.values() for name in (head, f"± {head}")}
        yield Artefact(
            name=f"images-{task}",
            title=f"Samples and energies ({task})",
            caption=" ".join(filter(None, said)),
            numbers=frame,
            runs=list(cells["run"]),
            missing=len(sweep.missing(task)),
            table=Table(frame.dropna(axis="columns", how="all"), formats | dict.fromkeys(energies.values(), "{:.3f}")),
        )


def _meaning(samples: Iterable[str]) -> str:
    there = {metric.removeprefix("test/") for metric in samples}
    return ", ".join(text for text, names in _MEANING.items() if there & set(names))


def _row(cells: pd.DataFrame, samples: dict[str, tuple[str, str]], energies: dict[str, str]) -> dict[str, object]:
    row = of_seeds(cells, {metric: head for metric, (head, _) in samples.items()})
    return row | {head: cells[metric].mean() for metric, head in energies.items()}
