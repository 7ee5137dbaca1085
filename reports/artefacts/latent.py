"""Energies in latent space: steps of chains against quality and cost, likelihoods, samples, and what codes are for."""

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.measures.ranking import WALL
from reports import paper, statistics, style, terms, timing
from reports.artefact import Artefact, Table, fixed
from reports.artefacts.ablations import averages
from reports.methods import of_variants
from reports.sweep import Sweep, pictures, variants

_STEPS = {"prior": "param.prior_steps", "posterior": "param.posterior_steps"}
_MS = "ms per iteration and seed"
_LIKELIHOODS = {
    "test/log_likelihood": "exact", "test/log_likelihood_bound": "AIS", "test/log_likelihood_bound_lower": "lower",
    "test/log_likelihood_bound_upper": "upper", "test/log_likelihood_iw": "importance-weighted",
    "test/ais_effective_samples": "effective samples, AIS", "test/iw_effective_samples": "effective samples, IW",
    "latent/ais_gap": "gap", "latent/log_z": "log Z", "latent/log_z_effective_samples": "effective samples, log Z",
    "test/mmd": "MMD²", "test/long_mmd": "MMD², long", "latent/mmd_prior": "MMD² of codes, prior",
    "latent/mmd_normal": "MMD² of codes, N(0, I)", "val/prior_gap": "energy gap of the prior", WALL: _MS,
}  # metric: head of its column  # fmt: skip
_LABELS = re.compile(r"latent/labels_(\d+)_accuracy")
_ANOMALY = {"anomaly/auprc": "AUPRC", "anomaly/auroc": "AUROC", "anomaly/auprc_reconstruction": "AUPRC, reconstruction",
            "anomaly/auprc_gaussian": "AUPRC, Gaussian fit", "anomaly/share": "share"}  # fmt: skip
_ABREAST, _SHOWN = 4, 15  # panels of codes in a row, and variants in one figure


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task what it has the cells for."""
    for task in sweep.tasks:
        yield from _likelihoods(sweep, task)
        yield from _steps(sweep, task)
        yield from _codes(sweep, task)
        yield from _few_labels(sweep, task)
    yield from _anomaly(sweep)


# --- likelihoods and samples ------------------------------------------------------------------------------------------


def _likelihoods(sweep: Sweep, task: str) -> Iterator[Artefact]:
    """What is known of the likelihoods, and how far samples and codes are from where they should be."""
    done = sweep.of(task)
    if not {"latent/ais_gap", "latent/mmd_normal", "latent/log_z"} & set(done.dropna(axis="columns", how="all")):
        return
    frame = means(timing.by_clock(done), _LIKELIHOODS)
    yield Artefact(
        name=f"latent-{task}",
        title=f"Likelihoods and samples of latent models ({task})",
        caption="Means over seeds. Test log-likelihood (nats): exact, by sums over codes, where there are two at most; "
        "else by annealed importance sampling over the codes of each example, with the ends between which it lies (the "
        "upper one as far as data are no harder to anneal than the model's own draws, whose gap between annealing both "
        "ways is given), and the importance-weighted bound of the encoder, with effective sample sizes per example; "
        "log Z is the prior's. Squared maximum mean discrepancy from test data of samples as the method draws them, "
        "and of the model's own, which for a learnt prior are ends of long chains on it; and of the codes of test data "
        "from the prior's and from N(0, I). The energy gap is that of the prior's between codes of validation data and "
        f"its chains, near 0 where these have converged. Times: {timing.said(done)}." + timing.machines(done),
        numbers=frame,
        runs=list(done["run"]),
        missing=len(sweep.missing(task)),
        table=Table(frame, {name: fixed(frame[name], 3) for name in map(str, frame) if name != "variant"}),
    )


def means(done: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """One row per variant: of each metric that was measured the mean over seeds."""
    rows = []
    for variant in variants(done):
        cells = done[done["variant"] == variant]
        found = {head: cells[metric].mean() for metric, head in columns.items() if metric in cells}
        rows.append({"variant": variant, **found})
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


# --- what codes are for -----------------------------------------------------------------------------------------------


def _codes(sweep: Sweep, task: str) -> Iterator[Artefact]:
    """Prior, N(0, I) and aggregate posterior in the plane."""
    arrays, runs, seed = pictures(sweep, task, "aggregate")
    shown = dict(list(arrays.items())[:_SHOWN])
    if not shown:
        return
    missing = len(sweep.missing(task))
    measured = means(sweep.of(task), {name: _LIKELIHOODS[name] for name in ("latent/mmd_prior", "latent/mmd_normal")})
    yield Artefact(
        name=f"codes-of-data-{task}",
        title=f"Codes of the data, and the prior ({task})",
        caption="In the plane of two codes: samples of the prior (orange) and codes h ~ q(h|v) of test data "
        "(blue), the aggregate posterior. Where these do not lie on each other, the model's samples "
        f"are none of the data's kind. {terms.capital(terms.seed_at(seed, shown.values()))}.",
        alt=f"Prior and aggregate posterior of {', '.join(shown)}.",
        numbers=measured[measured["variant"].isin(list(shown))],
        runs=runs[: len(shown)],
        missing=missing,
        figure=style.mark(draw_codes(shown), missing),
        arrays={f"{variant} {name}": content[name] for variant, content in shown.items()
                for name in ("prior", "aggregate")},
    )  # fmt: skip


def draw_codes(shown: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A panel for each variant."""
    rows = -(-len(shown) // _ABREAST)
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, rows * style.TEXT_WIDTH / _ABREAST), layout="constrained")
        panels = list(figure.subplots(rows, _ABREAST, squeeze=False).flat)
        for axes in panels:
            axes.set_axis_off()
        for axes, (variant, content) in zip(panels, shown.items(), strict=False):
            axes.set_axis_on()
            axes.grid(visible=False)
            for name, colour in (("prior", "#e07414"), ("aggregate", style.POINT)):
                axes.scatter(*content[name].T, s=1, linewidths=0, color=colour, alpha=0.5, rasterized=True)
            both = np.concatenate([content["prior"], content["aggregate"]])
            low, high = np.quantile(both, (0.002, 0.998), axis=0)
            middle, half = (low + high) / 2, 0.55 * float((high - low).max())
            axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
            axes.set_aspect("equal")
            axes.set_title(style.in_lines(variant, style.TEXT_WIDTH / _ABREAST), fontsize=style.PANEL)
            axes.tick_params(labelsize=5)
    return figure


def _few_labels(sweep: Sweep, task: str) -> Iterator[Artefact]:
    """Accuracies by labels of each class, the pixels' in a row of their own."""
    done = sweep.of(task)
    counts = sorted(
        int(found[1]) for name in done if (found := _LABELS.fullmatch(str(name))) and done[name].notna().any()
    )
    if not counts:
        return
    frame = means(done, {f"latent/labels_{n}_accuracy": str(n) for n in counts})
    pixels = {str(n): done[f"latent/labels_{n}_pixels_accuracy"].mean() for n in counts}
    frame = pd.concat([frame, pd.DataFrame([{"variant": "pixels", **pixels}])], ignore_index=True)
    yield Artefact(
        name=f"few-labels-{task}",
        title=f"Classes from few labels ({task})",
        caption="Accuracy on test data of a logistic regression on E[h|v] that has seen so many labels of each class; "
        "means over draws of the labelled examples and over seeds; the same of the images themselves below.",
        numbers=frame,
        runs=list(done["run"]),
        missing=len(sweep.missing(task)),
        table=Table(frame, {str(n): "{:.2f}" for n in counts}),
    )


# --- anomalies --------------------------------------------------------------------------------------------------------


def _anomaly(sweep: Sweep) -> Iterator[Artefact]:
    """How well a class that was held out is found, beside what is published of MNIST."""
    tasks = [task for task in sweep.tasks if "anomaly/auprc" in sweep.of(task).dropna(axis="columns", how="all")]
    if not tasks:
        return
    frame = pd.concat([_of_task(sweep.of(task)).assign(task=task) for task in tasks], ignore_index=True)
    frame = frame[["task", *frame.columns.drop("task")]]
    digits = set(frame["held out"].dropna())
    of_mnist = any("mnist" in set(sweep.of(task).get("param.data", [])) for task in tasks)
    printed = [
        {"task": "published", "variant": name, "held out": digit, "AUPRC": value}
        for name, found in paper.ANOMALY.items()
        for digit, value in found.items()
        if digit in digits
    ]
    if of_mnist:
        frame = pd.concat([frame, pd.DataFrame(printed)], ignore_index=True)
    yield Artefact(
        name="anomaly",
        title="A class that was held out",
        caption="Area under the precision-recall curve (AUPRC, average precision) and under the ROC curve (AUROC) by "
        "which test examples of the class that training has not seen are found, by the model's energy of v at its "
        "code, by the error of reconstruction, and by a Gaussian fit to the training data; the share of the class is "
        "the precision of guessing. Means over seeds, AUPRC with 95% intervals (Student's t) of several."
        + (" Published values are those of Pang et al. 2020, of other networks and another split." if of_mnist else ""),
        numbers=frame,
        runs=[run for task in tasks for run in sweep.of(task)["run"]],
        missing=sum(len(sweep.missing(task)) for task in tasks),
        table=Table(frame, {name: "{:.3f}" for name in (*_ANOMALY.values(), "± 95%") if name in frame}
                    | {"held out": "{:.0f}"}),
    )  # fmt: skip


def _of_task(done: pd.DataFrame) -> pd.DataFrame:
    frame = means(done, _ANOMALY)
    halves, held = [], []
    for variant in frame["variant"]:
        cells = done[done["variant"] == variant]
        halves.append(statistics.interval(cells["anomaly/auprc"].dropna())[1])
        held.append(statistics.counts(cells.get("param.data_held_out", pd.Series([np.nan]))).iloc[0])
    frame.insert(1, "held out", held)
    frame.insert(3, "± 95%", halves)
    return frame


# --- steps of chains ------------------------------------------------------------------------------------------------


def _steps(sweep: Sweep, task: str) -> Iterator[Artefact]:
    """Quality and cost against the steps of the prior's chains, and against those of the posterior's."""
    metric, done = sweep.measures(task), sweep.of(task)
    if metric is None or not all(column in done for column in _STEPS.values()):
        return
    done = done.assign(**{column: statistics.counts(done[column]) for column in _STEPS.values()})
    for method, group in done[done[list(_STEPS.values())].notna().all(axis="columns")].groupby("method"):
        cells = timing.by_clock(group)
        curves = {
            chains: averages(_alike(cells, other), metric, {_STEPS[chains]: "steps"})
            for chains, other in (("prior", "posterior"), ("posterior", "prior"))
        }
        shown = {chains: curve for chains, curve in curves.items() if len(curve) > 2}
        if not shown:
            continue
        label, missing = next(iter(of_variants(cells).values())).label, len(sweep.missing(task))
        numbers = pd.concat([curve.assign(chains=chains) for chains, curve in shown.items()], ignore_index=True)
        yield Artefact(
            name=f"chain-steps-{method}-{task}",
            title=f"{label}: steps of the chains ({task})",
            caption=f"{terms.capital(terms.measure(metric))}, and a seed's share of the time of an iteration, against "
            f"the Langevin steps on the prior and on the posterior; of each with the other's at "
            f"{' and '.join(f'{_most(cells, _STEPS[chains]):g} on the {chains}' for chains in _STEPS)}. Means over "
            f"{terms.counted(int(numbers['seeds'].max()), 'seed')} at most, with 95% intervals (Student's t). Times: "
            f"{timing.said(cells)}.{timing.machines(cells)}",
            alt=f"{terms.capital(terms.measure(metric))}: "
            + "; ".join(f"{row['steps']:g} steps on the {row['chains']}: {terms.number(row['quality'])}"
                        for row in numbers.to_dict("records")) + ".",
            numbers=numbers,
            runs=list(cells["run"]),
            missing=missing,
            figure=style.mark(draw_steps(shown, metric), missing),
            table=Table(numbers[["chains", *numbers.columns.drop("chains")]],
                        {_MS: fixed(numbers[_MS], 3), "steps": "{:g}"}, {"quality": "", "± 95%": ""}, numbers["± 95%"]),
        )  # fmt: skip


def _most(cells: pd.DataFrame, column: str) -> float:
    """The value that most variants have."""
    return float(cells.drop_duplicates("variant")[column].mode().iloc[-1])


def _alike(cells: pd.DataFrame, chains: str) -> pd.DataFrame:
    """The cells whose number of steps on these chains is that of most."""
    column = _STEPS[chains]
    return cells[cells[column] == _most(cells, column)]


def draw_steps(curves: dict[str, pd.DataFrame], metric: str) -> Figure:
    """Quality and cost against steps, a curve for each of the two kinds of chains."""
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.4), layout="constrained")
        quality, cost = figure.subplots(1, 2, sharex=True)
        for place, (chains, curve) in enumerate(curves.items()):
            look = {"label": f"on the {chains}", "linestyle": style.dashes(place), "marker": "os"[place],
                    "color": f"C{place}"}  # fmt: skip
            bars = curve["± 95%"].fillna(0.0)
            quality.errorbar(curve["steps"], curve["quality"], yerr=bars if bars.any() else None, **look)
            cost.plot(curve["steps"], curve[_MS], **look)
        quality.set(ylabel=style.in_lines(terms.measure(metric), 1.8), xlabel="Langevin steps")
        cost.set(ylabel=_MS, xlabel="Langevin steps", ylim=(0, None))
        quality.legend()
    return figure
