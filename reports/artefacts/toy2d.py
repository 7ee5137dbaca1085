"""Points in the plane: the true density, and of every variant its density, its samples and those of long chains."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.measures.density import median, usual
from reports import style, terms
from reports.artefact import Artefact, Table, fixed
from reports.sweep import Sweep, pictures, selected, variants

_ABREAST, _PANELS = 2, 3  # variants in a row, and panels of each
_SHOWN = 11  # variants in one figure, beside the truth
_MEASURES = {  # metric: head of its column
    "test/mmd": "MMD²", "test/long_mmd": "MMD², long", "test/ksd": "KSD²", "test/long_ksd": "KSD², long",
    "test/c2st": "C2ST", "test/long_c2st": "C2ST, long", "langevin/energy_gap": "energy gap (nats)",
    "langevin/gradient_own": "|∇E|", "langevin/gradient_long": "|∇E|, long", "langevin/acceptance": "accepted",
}  # fmt: skip
_OF_POINTS = "test/c2st"  # of images there is none
Maps = Mapping[str, Mapping[str, np.ndarray]]


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task whose samples were compared with those of long chains: figures of some variants each, a table."""
    for task in sweep.tasks:
        arrays, runs, seed = pictures(sweep, task, "toy2d")
        missing = len(sweep.missing(task))
        for part, start in enumerate(range(0, len(arrays), _SHOWN)):
            shown = dict(list(arrays.items())[start : start + _SHOWN])
            first = next(iter(shown.values()))
            yield Artefact(
                name=f"toy2d-{task}" + (f"-{part + 1}" if part else ""),
                title=f"Densities and samples ({task}{f', part {part + 1}' if part else ''})",
                caption=_caption(shown, seed),
                alt=f"The true density, and density, samples and long chains of {', '.join(shown)}.",
                numbers=_numbers(shown),
                runs=[run for run, variant in zip(runs, arrays, strict=True) if variant in shown],
                missing=missing,
                figure=style.mark(draw(shown), missing),
                arrays={name: first[name] for name in ("first", "second", "points", "truth") if name in first}
                | {f"{variant} {name}": content[name] for variant, content in shown.items()
                   for name in ("density", "own", "long") if name in content},
            )  # fmt: skip
        if arrays or _OF_POINTS in sweep.of(task).dropna(axis="columns", how="all"):  # no arrays are sent
            yield _table(sweep, task, missing)


def _caption(shown: Maps, seed: int) -> str:
    first = next(iter(shown.values()))
    top = _brightest(first)
    truth = "True density and points of the training data" if "truth" in first else "Points of the training data"
    drawn, chains = terms.counted(len(first["own"]), "sample"), terms.counted(len(first["long"]), "chain")
    (left, right), (bottom, up) = ((first[name][0], first[name][-1]) for name in ("first", "second"))
    ranges = f"v₁ from {left:.3g} to {right:.3g}, v₂ from {bottom:.3g} to {up:.3g}".replace("-", "−")
    return (
        f"{truth}, then of each variant its density, {drawn} as the method draws them, and the ends of {chains} that "
        f"go on from there by {_steps(shown)} of the Metropolis-adjusted Langevin algorithm on the trained energy"
        f"{_instead(shown)}: samples that they leave were none of the model. All panels are of {ranges}, densities "
        f"from 0 to {top:.2g}. {terms.capital(terms.seed_at(seed, shown.values()))}. Where mass or samples lie beyond "
        "the panel, their share is written."
    )


def _steps(shown: Maps) -> str:
    """Of the chains; earlier files do not say how many."""
    return " or ".join(dict.fromkeys(str(x["steps"]) for x in shown.values() if "steps" in x)) or "many steps"


def _instead(shown: Maps) -> str:
    """What some variants have in the place of chains."""
    of = dict[str, list[str]]()
    for variant, content in shown.items():
        if "instead" in content:
            of.setdefault(str(content["instead"]), []).append(variant)
    return "".join(f" (of {', '.join(names)}: {what})" for what, names in of.items())


def _brightest(content: Mapping[str, np.ndarray]) -> float:
    """Twice the density that half of the data lie above."""
    return 2 * (median(content["truth"]) if "truth" in content else usual(content["points"]))


def _numbers(shown: Maps) -> pd.DataFrame:
    rows = []
    for variant, content in shown.items():
        rows.append({"variant": variant, "mass on the map": _mass(content),
                     "samples beyond it": _beyond(content, content["own"]),
                     "long chains beyond it": _beyond(content, content["long"])})  # fmt: skip
    return pd.DataFrame(rows)


def _mass(content: Mapping[str, np.ndarray]) -> float:
    """How much of a density is on the map."""
    cell = float((content["first"][1] - content["first"][0]) * (content["second"][1] - content["second"][0]))
    return float(content["density"].sum()) * cell if "density" in content else math.nan


def _beyond(content: Mapping[str, np.ndarray], points: np.ndarray) -> float:
    low, high = (np.array([content[name][end] for name in ("first", "second")]) for end in (0, -1))
    return 1 - float(((points >= low) & (points <= high)).all(axis=1).mean())


def draw(shown: Maps) -> Figure:
    """Groups of three panels, the truth first."""
    first = next(iter(shown.values()))
    rows = math.ceil((len(shown) + 1) / _ABREAST)
    side = style.TEXT_WIDTH / (_ABREAST * _PANELS)
    titles = {variant: style.in_lines(variant, side) for variant in shown}
    title = 0.2 + 0.11 * max(name.count("\n") for name in titles.values())  # inches
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, rows * (side + title)), layout="constrained")
        grid = figure.subplots(rows, _ABREAST * _PANELS, squeeze=False)
        groups = grid.reshape(rows * _ABREAST, _PANELS)
        for axes in grid.flat:
            axes.set_axis_off()
        top = _brightest(first)
        if "truth" in first:
            _map(groups[0][0], first, first["truth"], top, "true density")
        _dots(groups[0][1], first, first["points"], "data")
        for panels, (variant, content) in zip(groups[1:], shown.items(), strict=False):
            panels[0].set_title(titles[variant], fontsize=style.PANEL)
            if "density" in content:
                _map(panels[0], content, content["density"], top, titles[variant])
                _say(panels[0], 1 - _mass(content), "beyond", "white")
            _dots(panels[1], content, content["own"], "samples")
            _dots(panels[2], content, content["long"], "long chains")
    return figure


def _frame(axes: Axes, content: Mapping[str, np.ndarray], title: str) -> None:
    axes.set_axis_on()
    axes.grid(visible=False)
    axes.set(xlim=content["first"][[0, -1]], ylim=content["second"][[0, -1]], xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    axes.set_title(title, fontsize=style.PANEL)


def _map(axes: Axes, content: Mapping[str, np.ndarray], density: np.ndarray, top: float, title: str) -> None:
    extent = (*content["first"][[0, -1]], *content["second"][[0, -1]])
    axes.imshow(density, origin="lower", extent=extent, cmap="viridis", vmin=0, vmax=top, aspect="auto",
                interpolation="nearest")  # fmt: skip
    _frame(axes, content, title)


def _dots(axes: Axes, content: Mapping[str, np.ndarray], points: np.ndarray, title: str) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=0.8, linewidths=0, color=style.POINT, rasterized=True)
    _frame(axes, content, title)
    _say(axes, _beyond(content, points), "beyond", style.ALARM)


def _say(axes: Axes, share: float, where: str, colour: str) -> None:
    """The share of what a panel does not show, if it is worth a word."""
    if share > 0.01:
        axes.text(0.5, 0.03, f"{share:.0%} {where}", transform=axes.transAxes, color=colour, fontsize=6, ha="center")


def _table(sweep: Sweep, task: str, missing: int) -> Artefact:
    """Means over seeds."""
    done = sweep.of(task)
    rows = []
    for variant in variants(done):
        cells = done[done["variant"] == variant]
        means = {head: selected(cells, metric).mean() for metric, head in _MEASURES.items() if metric in cells}
        rows.append({"variant": variant, **means})
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    formats = {str(head): fixed(frame[head], 2) for head in frame if head != "variant"}
    return Artefact(
        name=f"two-samples-{task}",
        title=f"Samples and long chains ({task})",
        caption="Distances of samples from the test data: squared maximum mean discrepancy (MMD²), squared kernel "
        "Stein discrepancy to the true density's score where it has one (KSD²), both unbiased and about 0 for samples "
        "of the data's law, and the accuracy of a nearest-neighbour classifier that tells them apart (C2ST), then "
        "about 1/2. First of the samples as the method draws them, then of the ends of long chains that go on from "
        "them on the trained energy, or, of a model with a prior, of what this prior's draws decode to. Energy gap: "
        "the mean energy of the former less that of the latter; |∇E|: the mean norm of its gradient. Accepted: the "
        "share of the long chains' proposals that were. Means over seeds.",
        numbers=frame,
        runs=list(done["run"]),
        missing=missing,
        table=Table(frame, formats),
    )
